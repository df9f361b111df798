//! Integrity: proves that tenants are apart, or says exactly what is open.
//! SQL: sql/integrity.sql runs the checks; sql/integrity/*.sql are they.

pgrx::extension_sql_file!("../../sql/integrity.sql", requires = ["isolation", "fence", "audit"]);
pgrx::extension_sql_file!(
    "../../sql/integrity/protection.sql",
    name = "integrity_protection",
    requires = ["integrity"]
);
pgrx::extension_sql_file!("../../sql/integrity/paths.sql", name = "integrity_paths", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/keys.sql", name = "integrity_keys", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/roles.sql", name = "integrity_roles", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/rows.sql", name = "integrity_rows", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/orphans.sql", name = "integrity_orphans", requires = ["integrity_rows"]);
pgrx::extension_sql_file!("../../sql/integrity/proof.sql", name = "integrity_proof", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/answers.sql", name = "integrity_answers", requires = ["integrity"]);
