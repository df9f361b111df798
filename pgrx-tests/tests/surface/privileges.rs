//! Who may do what, as text: after `tenancy.grant_usage` to one role and `tenancy.grant_admin` to another.

use pg_tenancy_tests::Db;

/// What each kind of role was given, one kind under the other. Of the routines that nobody was given those of schema
/// `tenancy`, which are for superusers; the others are called by ours alone.
pub fn describe(db: &Db) -> String {
    let admin = db.admin();
    let (application, administrator) = (db.role("application", ""), db.role("administrator", ""));
    admin.query("SELECT tenancy.grant_usage($1::text::regrole)", &[&application.to_string()]);
    admin.query("SELECT tenancy.grant_admin($1::text::regrole)", &[&administrator.to_string()]);
    admin.run(&format!("SET search_path = pg_catalog; {GRANTS}"));
    let mut text = String::new();
    let administrator = format!("'{administrator}'::regrole");
    let application = format!("'{application}'::regrole");
    for (title, role) in [("everybody", "0"), ("application", &*application), ("administrator", &*administrator)] {
        text.push_str(&format!("=== {title}\n"));
        let sql = format!("SELECT what FROM pg_temp.grants WHERE grantee = {role} ORDER BY what COLLATE \"C\"");
        admin.rows(&sql).iter().for_each(|line| text.push_str(&format!("{line}\n")));
        text.push('\n');
    }
    text.push_str("=== superusers\n");
    admin.rows(NOBODYS).iter().for_each(|line| text.push_str(&format!("{line}\n")));
    text
}

/// All that is granted to anybody but the owner.
const GRANTS: &str = "
CREATE TEMPORARY VIEW grants AS
SELECT a.grantee, 'EXECUTE ' || p.oid::regprocedure AS what
  FROM pg_proc p CROSS JOIN LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
 WHERE p.pronamespace IN ('tenancy'::regnamespace, 'tenancy_internal'::regnamespace) AND a.grantee <> p.proowner
UNION ALL
SELECT a.grantee, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) || ' ' || c.oid::regclass
  FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
 WHERE c.relnamespace IN ('tenancy'::regnamespace, 'tenancy_internal'::regnamespace) AND a.grantee <> c.relowner
 GROUP BY a.grantee, c.oid
UNION ALL
SELECT a.grantee, a.privilege_type || ' SCHEMA ' || n.nspname
  FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
 WHERE n.nspname IN ('tenancy', 'tenancy_internal') AND a.grantee <> n.nspowner";

const NOBODYS: &str = "
SELECT 'EXECUTE ' || p.oid::regprocedure FROM pg_proc p
 WHERE p.pronamespace = 'tenancy'::regnamespace
   AND NOT EXISTS (SELECT FROM aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee <> p.proowner)
 ORDER BY p.oid::regprocedure::text COLLATE \"C\"";
