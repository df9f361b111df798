-- What a DBA sees in psql when he asks whether tenants are apart.
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT * FROM tenancy.check_integrity();
