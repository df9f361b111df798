-- room integrity · Rust src/integrity · tests pgrx-tests/{tests,regress}
-- The checks themselves stand in sql/integrity/*.sql; here is what runs them and what is kept about them.

-- What a check saw. A row without check_id is no defect: it says that an object was examined, and how many rows of it.
CREATE TYPE tenancy_internal.finding AS (
    check_id    text,
    classid     oid,        -- what it is about, as in pg_depend; pg_database for the database itself
    objid       oid,
    objsubid    integer,    -- number of a column, or 0
    tenant      text,
    row_count   bigint,
    sample_rows jsonb,
    detail      text,       -- the same for the same defect: an exception is granted for what it says
    remedy      text        -- a statement or a call that mends it; NULL where a person has to decide
);

-- The checks there are; rows are the extension's own, hence not dumped.
CREATE TABLE tenancy_internal.integrity_checks (
    check_id text    PRIMARY KEY,
    scope    text    NOT NULL CHECK (scope IN ('catalog', 'roles', 'data')),
    severity text    NOT NULL CHECK (severity IN ('error', 'warning', 'info')),
    is_on    boolean NOT NULL DEFAULT true,
    source   text    NOT NULL,    -- tenancy_internal.<source>(tables oid[], sample integer, deep boolean) returns its findings
    title    text    NOT NULL
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.integrity_checks', 'WHERE false');

-- What users changed of them; by name, for a check may be gone in the version that a dump is restored under.
CREATE TABLE tenancy_internal.integrity_settings (
    check_id   text        PRIMARY KEY,
    is_on      boolean,
    severity   text        CHECK (severity IN ('error', 'warning', 'info')),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_by name        NOT NULL DEFAULT session_user
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.integrity_settings', '');

CREATE TABLE tenancy_internal.accepted_findings (
    check_id    text        NOT NULL,
    object      text        NOT NULL,
    reason      text        NOT NULL,
    until       timestamptz,
    digests     text[]      NOT NULL,    -- of the object and of what was found of it (finding_digest); a tenant each
    accepted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    accepted_by name        NOT NULL DEFAULT session_user,
    PRIMARY KEY (check_id, object)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.accepted_findings', '');

CREATE VIEW tenancy.integrity_checks AS
SELECT c.check_id, c.scope, COALESCE(s.severity, c.severity) AS severity, COALESCE(s.is_on, c.is_on) AS is_on, c.title,
       s.changed_at, s.changed_by
  FROM tenancy_internal.integrity_checks c
  LEFT JOIN tenancy_internal.integrity_settings s ON s.check_id = c.check_id;

CREATE VIEW tenancy.accepted_findings AS
SELECT a.check_id, a.object, a.reason, a.until, a.until IS NOT NULL AND a.until <= pg_catalog.now() AS is_past,
       a.accepted_at, a.accepted_by
  FROM tenancy_internal.accepted_findings a;

-- Which functions to call for a scope. NULL checks: those that are on.
CREATE FUNCTION tenancy_internal.integrity_sources(wanted_scope text, wanted_check text) RETURNS TABLE (source text, scope text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT i.source, i.scope
      FROM tenancy.integrity_checks c JOIN tenancy_internal.integrity_checks i USING (check_id)
     WHERE wanted_scope IN ('all', i.scope) AND (wanted_check = i.check_id OR wanted_check IS NULL AND c.is_on)
     GROUP BY i.source, i.scope ORDER BY i.scope, i.source
$$;

-- The roles that run an application: tenancy.grant_usage was given to them, and they administer nothing.
CREATE FUNCTION tenancy_internal.application_roles() RETURNS SETOF oid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT a.grantee
      FROM pg_class c, aclexplode(c.relacl) a JOIN pg_authid r ON r.oid = a.grantee
     WHERE c.oid = 'tenancy.tenants'::regclass AND a.privilege_type = 'SELECT' AND r.oid <> c.relowner
       AND NOT CASE WHEN r.rolsuper    -- holds every privilege, hence ask for the grant
                    THEN EXISTS (SELECT FROM pg_proc f, aclexplode(f.proacl) g
                                  WHERE f.oid = 'tenancy.switch_tenant(text)'::regprocedure AND g.grantee = r.oid)
                    ELSE has_function_privilege(r.oid, 'tenancy.switch_tenant(text)', 'EXECUTE') END
$$;

-- Who a privilege must be given to for an application role to hold it: these, what they are members of, and 0 for PUBLIC.
CREATE FUNCTION tenancy_internal.application_grantees() RETURNS SETOF oid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE reach(role) AS (
    SELECT r FROM tenancy_internal.application_roles() r
     UNION
    SELECT m.roleid FROM reach JOIN pg_auth_members m ON m.member = reach.role
)
SELECT 0::oid UNION ALL SELECT role FROM reach
$$;

-- The protected tables, partitions and children, each with the number of its tenant column by its present name; all in one
-- pass, for checks that look at a thousand of them.
CREATE FUNCTION tenancy_internal.guarded_tables(tables oid[]) RETURNS TABLE (
    relation oid, root oid, schema name, name name, identity text, access text, tenant_key text, tenant_column name,
    tenant_number int2, foreign_keys text, owner oid, owner_name name, owner_danger text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH by_policy AS (
    SELECT y.polrelid, min(d.refobjsubid)::int2 AS attnum
      FROM pg_policy y
      JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = y.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = y.polrelid AND d.refobjsubid > 0
     WHERE y.polname = 'tenancy_isolation'
     GROUP BY y.polrelid
)
SELECT c.oid, p.root, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), p.access, p.tenant_key, a.attname, a.attnum,
       p.foreign_keys, r.oid, r.rolname,
       CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'has BYPASSRLS' END
  FROM tenancy_internal.protected_tables p
  JOIN pg_class c ON c.oid = p.relation
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_authid r ON r.oid = c.relowner
  LEFT JOIN by_policy y ON y.polrelid = c.oid
  LEFT JOIN pg_attribute a    -- by number, for the index
    ON a.attrelid = c.oid AND NOT a.attisdropped AND p.access <> 'reference'
   AND a.attnum = COALESCE(y.attnum, (SELECT b.attnum FROM pg_attribute b
                                       WHERE b.attrelid = c.oid AND b.attname = p.tenant_column))
 WHERE tables IS NULL OR c.oid = ANY (tables)
$$;

-- The text of a function without its comments, which might name anything. One call for each kind: of two alternatives PostgreSQL
-- takes the longest match, up to the last comment's end.
CREATE FUNCTION tenancy_internal.without_comments(source text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT regexp_replace(regexp_replace(source, '/\*.*?\*/', ' ', 'g'), '--[^\n]*', ' ', 'g')
$$;

-- A finding that is about an object as a whole.
CREATE FUNCTION tenancy_internal.defect(check_id text, classid oid, objid oid, detail text, remedy text)
RETURNS tenancy_internal.finding
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (check_id, classid, objid, 0, NULL, NULL, NULL, detail, remedy)::tenancy_internal.finding
$$;

-- What an exception is bound to: the object as it is, and what was found of it. Names, never oids: it outlives a dump.
CREATE FUNCTION tenancy_internal.finding_digest(found tenancy_internal.finding) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT md5(concat_ws(E'\n', found.check_id, found.tenant, found.detail, found.row_count::text, CASE found.classid::regclass::text
    WHEN 'pg_class' THEN (
        SELECT concat_ws(E'\n', c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relowner::regrole, c.relacl, c.reloptions,
                   CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
                   CASE WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid) END,
                   (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull), E'\n'
                                      ORDER BY a.attnum)
                      FROM pg_attribute a
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind NOT IN ('i', 'I')),
                   (SELECT string_agg(concat_ws(' ', y.polname, y.polcmd, y.polpermissive, y.polroles::regrole[],
                                                pg_get_expr(y.polqual, y.polrelid), pg_get_expr(y.polwithcheck, y.polrelid)),
                                      E'\n' ORDER BY y.polname)
                      FROM pg_policy y WHERE y.polrelid = c.oid),
                   (SELECT string_agg(k.conname || ' ' || pg_get_constraintdef(k.oid), E'\n' ORDER BY k.conname)
                      FROM pg_constraint k WHERE k.conrelid = c.oid))
          FROM pg_class c WHERE c.oid = found.objid)
    WHEN 'pg_proc' THEN (
        SELECT concat_ws(E'\n', f.proowner::regrole, f.proacl, f.proconfig, f.prosecdef, f.provolatile, f.prosrc)
          FROM pg_proc f WHERE f.oid = found.objid)
    WHEN 'pg_policy' THEN (
        SELECT concat_ws(' ', y.polcmd, y.polpermissive, y.polroles::regrole[], pg_get_expr(y.polqual, y.polrelid),
                         pg_get_expr(y.polwithcheck, y.polrelid))
          FROM pg_policy y WHERE y.oid = found.objid)
    WHEN 'pg_constraint' THEN pg_get_constraintdef(found.objid)
    WHEN 'pg_trigger' THEN (
        SELECT concat_ws(E'\n', pg_get_triggerdef(g.oid), g.tgenabled, f.prosrc)
          FROM pg_trigger g JOIN pg_proc f ON f.oid = g.tgfoid WHERE g.oid = found.objid)
    WHEN 'pg_rewrite' THEN pg_get_ruledef(found.objid)
    WHEN 'pg_authid' THEN (
        SELECT concat_ws(' ', r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolreplication, r.rolcanlogin, r.rolinherit,
                   (SELECT string_agg(m.roleid::regrole::text, ' ' ORDER BY m.roleid::regrole::text)
                      FROM pg_auth_members m WHERE m.member = r.oid))
          FROM pg_roles r WHERE r.oid = found.objid)
END))
$$;

CREATE FUNCTION tenancy_internal.finding_object(found tenancy_internal.finding) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT i.identity FROM pg_identify_object(found.classid, found.objid, COALESCE(found.objsubid, 0)) AS i
$$;

-- All that the sources of a scope say, also that they examined something. A source that fails is reported and does not
-- keep the others from their work. The caller's rights: rows are read, and who may not read them is told so. Without JIT,
-- which compiles for seconds what is done in milliseconds.
CREATE FUNCTION tenancy_internal.examine(scope text, wanted_check text, tables regclass[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    s record;
    family oid[];
    problem text;
BEGIN
    IF scope IS NULL OR scope NOT IN ('all', 'catalog', 'roles', 'data') THEN
        RAISE EXCEPTION 'scope must be all, catalog, roles or data, not %', COALESCE(quote_literal(scope), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out to run every check.';
    ELSIF sample IS NULL OR sample NOT BETWEEN 0 AND 1000 THEN
        RAISE EXCEPTION 'sample must be 0 to 1000 rows, not %', COALESCE(sample::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say 0 to see no rows.';
    ELSIF deep IS NULL THEN
        RAISE EXCEPTION 'deep must not be null'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say true to read also what valid constraints promise.';
    ELSIF array_position(tables, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'tables must not contain null'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave the argument out to examine every table.';
    END IF;
    IF tables IS NOT NULL THEN
        family := ARRAY(SELECT DISTINCT f FROM unnest(tables) t, tenancy_internal.table_family(t) f);
    END IF;
    FOR s IN SELECT * FROM tenancy_internal.integrity_sources(scope, wanted_check) LOOP
        -- Roles are nobody's table.
        CONTINUE WHEN s.scope = 'roles' AND tables IS NOT NULL;
        BEGIN
            PERFORM tenancy_internal.refuse_strangers(true);
            RETURN QUERY EXECUTE format('SELECT * FROM tenancy_internal.%I($1, $2, $3)', s.source) USING family, sample, deep;
            PERFORM tenancy_internal.refuse_strangers(false);
            RETURN NEXT (NULL, 'pg_proc'::regclass, 0, 0, NULL, NULL, NULL, s.source, NULL)::tenancy_internal.finding;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
            RETURN NEXT ('not_examined', 'pg_database'::regclass, (SELECT oid FROM pg_database WHERE datname = current_database()),
                         0, NULL, NULL, NULL, format('%s stopped: %s', s.source, problem), NULL)::tenancy_internal.finding;
        END;
    END LOOP;
END $$;

CREATE FUNCTION tenancy_internal.acceptances() RETURNS SETOF tenancy_internal.accepted_findings
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM tenancy_internal.accepted_findings
$$;

-- What examine() says, with its object's name, its severity, and whether it is accepted.
CREATE FUNCTION tenancy_internal.judge(scope text, wanted_check text, tables regclass[], sample integer, deep boolean)
RETURNS TABLE (
    check_id text, severity text, object text, tenant text, row_count bigint, sample_rows jsonb, detail text, remedy text,
    is_accepted boolean, digest text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.check_id, c.severity, o.object, f.tenant, f.row_count, f.sample_rows, f.detail, f.remedy,
           a.check_id IS NOT NULL AND (a.until IS NULL OR a.until > now()) AND tenancy_internal.finding_digest(f) = ANY (a.digests),
           CASE WHEN wanted_check IS NOT NULL THEN tenancy_internal.finding_digest(f) END
      FROM tenancy_internal.examine(scope, wanted_check, tables, sample, deep) f
      LEFT JOIN tenancy.integrity_checks c USING (check_id)
     CROSS JOIN LATERAL (SELECT CASE WHEN f.objid <> 0 THEN tenancy_internal.finding_object(f) END) AS o(object)
      LEFT JOIN tenancy_internal.acceptances() a ON a.check_id = f.check_id AND a.object = o.object
     WHERE f.check_id IS NULL OR c.is_on AND wanted_check IS NULL OR f.check_id = wanted_check
$$;

-- The findings that count: of checks that are on, and not accepted.
CREATE FUNCTION tenancy.check_integrity(
    scope text DEFAULT 'all', tables regclass[] DEFAULT NULL, sample integer DEFAULT 5, deep boolean DEFAULT false
) RETURNS TABLE (
    check_id text, severity text, object text, tenant text, row_count bigint, sample_rows jsonb, detail text, remedy text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.check_id, f.severity, f.object, f.tenant, f.row_count, f.sample_rows, f.detail, f.remedy
      FROM tenancy_internal.judge(scope, NULL, tables, sample, deep) f
     WHERE f.check_id IS NOT NULL AND NOT f.is_accepted
     ORDER BY array_position('{error,warning,info}', f.severity), f.check_id, f.object, f.tenant
$$;

INSERT INTO tenancy_internal.integrity_checks (check_id, scope, severity, source, title) VALUES
    ('not_examined', 'catalog', 'warning', 'find_nothing', 'something could not be looked at');

-- not_examined comes from whatever was to be examined.
CREATE FUNCTION tenancy_internal.find_nothing(tables oid[], sample integer, deep boolean) RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT NULL::tenancy_internal.finding WHERE false
$$;

-- Checks run with their caller's rights where they look at rows; what looks at catalogs has the extension's.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'SELECT', 'TABLE', '{tenancy.integrity_checks}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.check_integrity, tenancy_internal.judge, tenancy_internal.examine,
        tenancy_internal.integrity_sources, tenancy_internal.acceptances, tenancy_internal.finding_digest,
        tenancy_internal.finding_object, tenancy_internal.application_roles, tenancy_internal.find_nothing,
        tenancy_internal.refuse_strangers}');

COMMENT ON TYPE tenancy_internal.finding IS 'what a check saw: a defect, or without check_id that an object was examined';
COMMENT ON TABLE tenancy_internal.integrity_checks IS 'the checks of tenancy.check_integrity, as installed';
COMMENT ON TABLE tenancy_internal.integrity_settings IS 'which checks were switched, and the severity they were given';
COMMENT ON TABLE tenancy_internal.accepted_findings IS 'findings that somebody answers for, with what they were like';
COMMENT ON VIEW tenancy.integrity_checks IS 'the checks of tenancy.check_integrity; tenancy.set_check changes them';
COMMENT ON VIEW tenancy.accepted_findings IS 'findings that are not shown, with who accepted them and why (tenancy.accept_finding)';
COMMENT ON FUNCTION tenancy_internal.refuse_strangers(boolean) IS 'keeps code of tables'' owners from running with the rights of a superuser who looks at them';
COMMENT ON FUNCTION tenancy_internal.integrity_sources(text, text) IS 'the functions that find what the checks of a scope are about';
COMMENT ON FUNCTION tenancy_internal.application_roles() IS 'the roles that tenancy.grant_usage was given to, without those that administer';
COMMENT ON FUNCTION tenancy_internal.application_grantees() IS 'whose privileges an application role has: its own, its groups'', those of PUBLIC (0)';
COMMENT ON FUNCTION tenancy_internal.guarded_tables(oid[]) IS 'the protected tables with their tenant columns, for checks of many';
COMMENT ON FUNCTION tenancy_internal.without_comments(text) IS 'the text of a function without its comments';
COMMENT ON FUNCTION tenancy_internal.defect(text, oid, oid, text, text) IS 'a finding about an object as a whole';
COMMENT ON FUNCTION tenancy_internal.finding_digest(tenancy_internal.finding) IS 'what an exception for a finding is bound to';
COMMENT ON FUNCTION tenancy_internal.finding_object(tenancy_internal.finding) IS 'the identity of what a finding is about';
COMMENT ON FUNCTION tenancy_internal.acceptances() IS 'the findings that were accepted';
COMMENT ON FUNCTION tenancy_internal.judge(text, text, regclass[], integer, boolean) IS 'findings with their severity, and whether they are accepted';
COMMENT ON FUNCTION tenancy_internal.examine(text, text, regclass[], integer, boolean) IS 'all that the sources of a scope say';
COMMENT ON FUNCTION tenancy_internal.find_nothing(oid[], integer, boolean) IS 'finds nothing; stands for checks without a source of their own';
COMMENT ON FUNCTION tenancy.check_integrity(text, regclass[], integer, boolean) IS
    'what is wrong with the isolation of this database, with what mends it: catalog, roles and rows; reads only';
