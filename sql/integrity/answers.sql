-- room integrity, report, assertion, exceptions, diagnosis

-- The whole answer as one document: what was examined and what was not, then what was found.
CREATE FUNCTION tenancy.integrity_report(
    scope text DEFAULT 'all', tables regclass[] DEFAULT NULL, sample integer DEFAULT 5, deep boolean DEFAULT false
) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH judged AS MATERIALIZED (
    SELECT * FROM tenancy_internal.judge(scope, NULL, tables, sample, deep)
), findings AS (
    SELECT j.*, array_position('{error,warning,info}', j.severity) AS rank FROM judged j WHERE j.check_id IS NOT NULL
), looked AS (
    SELECT c.check_id, c.is_on,
           c.is_on AND i.source IN (SELECT j.detail FROM judged j WHERE j.check_id IS NULL AND j.object IS NULL) AS ran
      FROM tenancy.integrity_checks c JOIN tenancy_internal.integrity_sources_of_checks() i USING (check_id)
     WHERE integrity_report.scope IN ('all', c.scope) AND c.check_id <> 'not_examined'
)
SELECT jsonb_build_object(
    'scope', integrity_report.scope,
    'deep', deep,
    'is_clean', NOT EXISTS (SELECT FROM findings f WHERE f.severity = 'error' AND NOT f.is_accepted)
        AND tenancy_internal.has_looked((SELECT count(*) FROM looked l WHERE l.ran),
                                        (SELECT count(*) FROM tenancy_internal.examined_tables(tables))),
    'coverage', jsonb_build_object(
        'protected_tables', (SELECT count(*) FROM tenancy_internal.examined_tables(tables)),
        'tables_read', (SELECT count(*) FROM judged j WHERE j.check_id IS NULL AND j.object IS NOT NULL),
        'rows_read', (SELECT COALESCE(sum(j.row_count), 0) FROM judged j WHERE j.check_id IS NULL AND j.object IS NOT NULL),
        'checks_run', (SELECT COALESCE(jsonb_agg(l.check_id ORDER BY l.check_id), '[]') FROM looked l WHERE l.ran),
        'checks_off', (SELECT COALESCE(jsonb_agg(l.check_id ORDER BY l.check_id), '[]') FROM looked l WHERE NOT l.is_on),
        'checks_not_run', (SELECT COALESCE(jsonb_agg(l.check_id ORDER BY l.check_id), '[]') FROM looked l WHERE l.is_on AND NOT l.ran),
        'skipped', (SELECT COALESCE(jsonb_agg(jsonb_build_object('object', f.object, 'reason', f.detail) ORDER BY f.object, f.detail), '[]')
                      FROM findings f WHERE f.check_id = 'not_examined')),
    'counts', (SELECT jsonb_object_agg(s.severity, (SELECT count(*) FROM findings f WHERE f.severity = s.severity AND NOT f.is_accepted))
                 FROM unnest('{error,warning,info}'::text[]) AS s(severity)),
    'findings', (SELECT COALESCE(jsonb_agg(jsonb_strip_nulls(to_jsonb(f) - '{is_accepted,digest,rank}'::text[])
                                           ORDER BY f.rank, f.check_id, f.object, f.tenant), '[]')
                   FROM findings f WHERE NOT f.is_accepted),
    'accepted', (SELECT COALESCE(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                            'check_id', a.check_id, 'object', a.object, 'reason', a.reason, 'until', a.until,
                            'accepted_by', a.accepted_by)) ORDER BY a.check_id, a.object), '[]')
                   FROM findings f JOIN tenancy_internal.acceptances() a ON a.check_id = f.check_id AND a.object = f.object
                  WHERE f.is_accepted))
$$;

-- A database without protected tables, or a call whose checks did not run, is not a clean one.
CREATE FUNCTION tenancy_internal.has_looked(checks_run bigint, protected_tables bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT checks_run > 0 AND protected_tables > 0
$$;

CREATE FUNCTION tenancy_internal.integrity_sources_of_checks() RETURNS TABLE (check_id text, source text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT i.check_id, i.source FROM tenancy_internal.integrity_checks i
$$;

CREATE FUNCTION tenancy_internal.examined_tables(tables regclass[]) RETURNS SETOF regclass
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.relation FROM tenancy_internal.protected_tables p JOIN pg_class c ON c.oid = p.relation
     WHERE tables IS NULL
        OR p.relation IN (SELECT f FROM unnest(tables) t, tenancy_internal.table_family(t) f)
$$;

-- For the CI of an application: an error unless there is nothing to mend.
CREATE FUNCTION tenancy.assert_integrity(scope text DEFAULT 'all', tables regclass[] DEFAULT NULL, deep boolean DEFAULT false)
RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    report jsonb := tenancy.integrity_report(scope, tables, 0, deep);
    errors bigint := report -> 'counts' -> 'error';
    coverage jsonb := report -> 'coverage';
    sources bigint := jsonb_array_length(coverage -> 'checks_run');
BEGIN
    IF errors > 0 THEN
        RAISE EXCEPTION '% % of tenant isolation', errors, CASE WHEN errors = 1 THEN 'defect' ELSE 'defects' END
            USING ERRCODE = 'check_violation',
                  DETAIL = (SELECT string_agg(concat_ws(' ', f ->> 'check_id', 'on', f ->> 'object' || ':', f ->> 'detail'), E'\n' ORDER BY at)
                              FROM jsonb_array_elements(report -> 'findings') WITH ORDINALITY AS e(f, at)
                             WHERE f ->> 'severity' = 'error' AND at <= 20),
                  HINT = 'SELECT * FROM tenancy.check_integrity() shows each with its remedy; tenancy.accept_finding(...) is for what is meant to be so.';
    ELSIF NOT (report -> 'is_clean')::boolean THEN
        RAISE EXCEPTION 'nothing was examined'
            USING ERRCODE = 'check_violation',
                  DETAIL = format('Checks run: %s; protected tables: %s.', sources, coverage ->> 'protected_tables'),
                  HINT = 'Protect tables with tenancy.protect_table(...), switch checks on with tenancy.set_check(...), or name tables that are protected.';
    ELSIF scope IN ('all', 'data') AND (coverage -> 'tables_read')::bigint = 0 THEN
        RAISE EXCEPTION 'no row was examined'
            USING ERRCODE = 'check_violation',
                  DETAIL = COALESCE((SELECT string_agg(concat_ws(': ', s ->> 'object', s ->> 'reason'), E'\n')
                                       FROM jsonb_array_elements(coverage -> 'skipped') AS s), 'No check of rows is on.'),
                  HINT = 'Call it as a role that reads all rows of the protected tables, or with scope => ''catalog''.';
    END IF;
    RETURN format('%s checks, %s protected tables, %s rows read: no defect', sources, coverage ->> 'protected_tables',
                  coverage ->> 'rows_read');
END $$;

-- A line for each part of what keeps tenants apart: for a dashboard, so rows are not read.
CREATE FUNCTION tenancy.health() RETURNS TABLE (part text, state text, detail text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH judged AS MATERIALIZED (
    SELECT j.*, c.scope FROM (
        SELECT * FROM tenancy_internal.judge('catalog', NULL, NULL, 0, false)
         UNION ALL
        SELECT * FROM tenancy_internal.judge('roles', NULL, NULL, 0, false)) AS j
      JOIN tenancy.integrity_checks c USING (check_id)
     WHERE NOT j.is_accepted
), parts(part, scope) AS (
    VALUES ('catalog', 'catalog'), ('roles', 'roles')
)
SELECT p.part,
       CASE WHEN bool_or(j.severity = 'error') THEN 'error' WHEN bool_or(j.severity = 'warning') THEN 'warning' ELSE 'ok' END,
       format('%s errors, %s warnings, %s notes', count(*) FILTER (WHERE j.severity = 'error'),
              count(*) FILTER (WHERE j.severity = 'warning'), count(*) FILTER (WHERE j.severity = 'info'))
  FROM parts p LEFT JOIN judged j USING (scope) GROUP BY p.part
 UNION ALL
SELECT 'protected tables', CASE WHEN count(*) > 0 THEN 'ok' ELSE 'warning' END, format('%s', count(*))
  FROM tenancy_internal.examined_tables(NULL)
 UNION ALL
SELECT 'fence', CASE WHEN c.fence = 'off' THEN 'warning' ELSE 'ok' END,
       CASE WHEN c.fence = 'off' THEN 'off: the library is not in shared_preload_libraries' ELSE c.fence END
  FROM tenancy.verify_context() c
 UNION ALL
SELECT 'server', CASE WHEN c.server_note IS NULL THEN 'ok' ELSE 'warning' END, COALESCE(c.server_note, version())
  FROM tenancy.verify_context() c
 UNION ALL
SELECT 'tenants', 'ok', COALESCE(string_agg(format('%s %s', t.count, t.status), ', ' ORDER BY t.status), 'none')
  FROM (SELECT count(*), status FROM tenancy.tenants GROUP BY status) AS t
 UNION ALL
SELECT 'exceptions', CASE WHEN bool_or(a.is_past) THEN 'warning' ELSE 'ok' END,
       format('%s accepted, %s past their date', count(*), count(*) FILTER (WHERE a.is_past))
  FROM tenancy.accepted_findings a
$$;

-- Switches a check, or gives it another severity; NULL for both puts back what it was installed with.
CREATE FUNCTION tenancy.set_check(check_id text, is_on boolean DEFAULT NULL, severity text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tenancy_internal.must_be_a_check(set_check.check_id);
    IF severity NOT IN ('error', 'warning', 'info') THEN
        RAISE EXCEPTION 'severity must be error, warning or info, not %', quote_literal(severity)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out to keep the severity that it has.';
    END IF;
    IF is_on IS NULL AND severity IS NULL THEN
        DELETE FROM tenancy_internal.integrity_settings s WHERE s.check_id = set_check.check_id;
        RETURN;
    END IF;
    INSERT INTO tenancy_internal.integrity_settings AS s (check_id, is_on, severity)
    VALUES (set_check.check_id, set_check.is_on, set_check.severity)
        ON CONFLICT ON CONSTRAINT integrity_settings_pkey DO UPDATE
       SET is_on = COALESCE(EXCLUDED.is_on, s.is_on), severity = COALESCE(EXCLUDED.severity, s.severity),
           changed_at = now(), changed_by = session_user;
END $$;

CREATE FUNCTION tenancy_internal.must_be_a_check(given text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tenancy.integrity_checks c WHERE c.check_id = given) THEN
        RAISE EXCEPTION 'there is no check %', COALESCE(quote_literal(given), 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'SELECT check_id, title FROM tenancy.integrity_checks lists them.';
    END IF;
END $$;

-- Somebody answers for a finding: it is not shown until the date, or until its object or what was found of it changes.
CREATE FUNCTION tenancy.accept_finding(check_id text, object text, reason text, until timestamptz DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    digests text[];
BEGIN
    PERFORM tenancy_internal.must_be_a_check(accept_finding.check_id);
    IF object IS NULL THEN
        RAISE EXCEPTION 'object must not be null'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the object as tenancy.check_integrity() shows it.';
    ELSIF btrim(COALESCE(reason, '')) = '' THEN
        RAISE EXCEPTION 'an accepted finding needs a reason'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say why it may stay: whoever reads tenancy.accepted_findings wants to know.';
    ELSIF until <= now() THEN
        RAISE EXCEPTION 'until is not in the future'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out for a finding that is accepted for good.';
    END IF;
    SELECT array_agg(j.digest) INTO digests
      FROM tenancy_internal.judge('all', accept_finding.check_id, NULL, 0, false) j
     WHERE j.check_id = accept_finding.check_id AND j.object = accept_finding.object;
    IF digests IS NULL THEN
        RAISE EXCEPTION 'check % finds nothing of %', accept_finding.check_id, object
            USING ERRCODE = 'undefined_object', HINT = 'Give check and object as tenancy.check_integrity() shows them.';
    END IF;
    PERFORM tenancy_internal.accept_finding_step(accept_finding.check_id, object, reason, until, digests);
END $$;

CREATE FUNCTION tenancy_internal.accept_finding_step(
    accepted_check text, accepted_object text, given_reason text, given_until timestamptz, found_digests text[]
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO tenancy_internal.accepted_findings (check_id, object, reason, until, digests)
    VALUES (accepted_check, accepted_object, given_reason, given_until, found_digests)
        ON CONFLICT (check_id, object) DO UPDATE
       SET reason = EXCLUDED.reason, until = EXCLUDED.until, digests = EXCLUDED.digests, accepted_at = now(), accepted_by = session_user
$$;

CREATE FUNCTION tenancy.unaccept_finding(check_id text, object text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tenancy_internal.accepted_findings a
     WHERE a.check_id = unaccept_finding.check_id AND a.object = unaccept_finding.object;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no finding of check % on % is accepted', COALESCE(unaccept_finding.check_id, 'NULL'), COALESCE(object, 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'SELECT * FROM tenancy.accepted_findings lists those that are.';
    END IF;
END $$;

-- The way from a client to its rows, link by link: for "it sees another tenant's data", "it sees nothing", "it got slow".
CREATE FUNCTION tenancy.diagnose(tenant text DEFAULT NULL, role regrole DEFAULT NULL, target regclass DEFAULT NULL)
RETURNS TABLE (link text, state text, detail text, remedy text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    here record;
    who oid := COALESCE(role::oid, (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user));
    known tenancy.tenants;
    danger text := tenancy_internal.role_danger(who);
    tables regclass[] := CASE WHEN target IS NOT NULL THEN ARRAY[target] END;
    t record;
BEGIN
    SELECT * INTO here FROM tenancy.verify_context();
    -- the server
    IF here.server_note IS NOT NULL THEN
        RETURN QUERY SELECT 'server', 'note', here.server_note || '.', NULL::text;
    END IF;
    RETURN QUERY SELECT 'server', CASE WHEN here.fence = 'off' THEN 'note' ELSE 'ok' END,
        CASE WHEN here.fence = 'off'
             THEN format('The library is loaded by %s; without shared_preload_libraries owners of definer functions, BYPASSRLS and superusers read every row.', here.loaded_by)
             ELSE format('The fence is %s.', here.fence) END,
        CASE WHEN here.fence = 'off' THEN 'ALTER SYSTEM SET shared_preload_libraries = ''pg_tenancy''' END;
    -- the role
    RETURN QUERY SELECT 'role', CASE WHEN danger IS NULL THEN 'ok' ELSE 'broken' END,
        COALESCE(danger || ' Row security does not stop it.', format('Row security binds role "%s".', pg_get_userbyid(who))), NULL::text;
    IF NOT has_schema_privilege(who, 'tenancy', 'USAGE') THEN
        RETURN QUERY SELECT 'role', 'broken', format('Role "%s" may not use schema tenancy: every protected table is an error to it.', pg_get_userbyid(who)),
            format('SELECT tenancy.grant_usage(%L)', who::regrole::text);
    END IF;
    -- the tenant
    IF tenant IS NOT NULL THEN
        SELECT * INTO known FROM tenancy.tenants x WHERE x.id = tenancy.find_tenant(tenant);
        RETURN QUERY SELECT 'tenant',
            CASE known.status WHEN 'active' THEN 'ok' WHEN 'read_only' THEN 'note' ELSE 'broken' END,
            CASE WHEN known.id IS NULL THEN format('There is no tenant %L.', tenant)
                 WHEN known.status = 'active' THEN format('Tenant "%s" is active: id %s, number %s.', known.code, known.id, known.number)
                 WHEN known.status = 'read_only' THEN format('Tenant "%s" reads but does not write.', known.code)
                 ELSE format('Tenant "%s" is %s: it sees an error instead of rows.', known.code, known.status) END
                || COALESCE(' Reason: ' || known.status_reason || '.', ''),
            CASE WHEN known.status IN ('read_only', 'suspended') THEN format('SELECT tenancy.resume_tenant(%L)', known.code)
                 WHEN known.status = 'deleted' THEN format('SELECT tenancy.undelete_tenant(%L)', known.code) END;
    END IF;
    -- the context of this session, which is the application's only where it asks itself
    IF who = (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user) THEN
        RETURN QUERY SELECT 'context', CASE WHEN here.tenant_id IS NULL THEN 'broken' ELSE 'ok' END,
            CASE WHEN here.tenant_id IS NULL
                 THEN COALESCE(upper(left(here.problem, 1)) || substr(here.problem, 2), 'This transaction has no tenant') || '.'
                 ELSE format('This transaction is of tenant "%s", set by %s.', here.tenant_code, here.set_by) END,
            CASE WHEN here.tenant_id IS NULL THEN 'SELECT tenancy.set_tenant(...), in a transaction' END;
        IF tenant IS NOT NULL AND here.tenant_id IS NOT NULL AND here.tenant_id IS DISTINCT FROM known.id THEN
            RETURN QUERY SELECT 'context', 'broken', format('The transaction is of tenant "%s", not of "%s".', here.tenant_code, tenant), NULL::text;
        END IF;
    END IF;
    -- the tables: protection, privileges, ways around, indexes
    IF target IS NOT NULL AND NOT EXISTS (SELECT FROM tenancy_internal.examined_tables(tables)) THEN
        RETURN QUERY SELECT 'policy', 'broken', format('%s is not protected: whoever may read it sees every row.', target),
            format('SELECT tenancy.protect_table(%L)', target::text);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT CASE WHEN f.check_id ~ '(index|analyzed)' THEN 'index' WHEN f.check_id ~ '(view|rule|function|trigger|publication|foreign_table|partition|child)' THEN 'path'
                WHEN c.scope = 'roles' THEN 'role' ELSE 'policy' END,
           CASE WHEN f.severity = 'info' THEN 'note' ELSE 'broken' END, format('%s: %s', f.object, f.detail), f.remedy
      FROM (SELECT * FROM tenancy.check_integrity('catalog', tables, 0)
             UNION ALL
            SELECT * FROM tenancy.check_integrity('roles', NULL, 0)
             WHERE target IS NULL) AS f
      JOIN tenancy.integrity_checks c USING (check_id)
     WHERE (f.severity <> 'info' OR f.check_id ~ 'index') AND f.check_id !~ '^server_';    -- of the server it was told above
    FOR t IN SELECT * FROM tenancy_internal.diagnose_tables(tables, who) LOOP
        RETURN QUERY SELECT t.link, t.state, t.detail, t.remedy;
    END LOOP;
    IF NOT EXISTS (SELECT FROM tenancy_internal.examined_tables(tables)) THEN
        RETURN QUERY SELECT 'policy', 'broken', 'No table is protected.', 'SELECT tenancy.protect_table(...)';
    END IF;
    -- the rows of the tenant, where they may be counted
    IF known.id IS NOT NULL THEN
        PERFORM tenancy_internal.refuse_strangers(true);
        RETURN QUERY SELECT d.* FROM tenancy_internal.diagnose_rows(tables, known) d;
        PERFORM tenancy_internal.refuse_strangers(false);
    END IF;
END $$;

-- What a role meets on the way to protected tables, and what slows it down.
CREATE FUNCTION tenancy_internal.diagnose_tables(tables regclass[], who oid)
RETURNS TABLE (link text, state text, detail text, remedy text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH examined AS (
    SELECT c.oid, c.relname, c.relnamespace, c.relkind, c.reltuples, p.access,
           tenancy_internal.is_enforced(c.oid, tenancy_internal.tenant_column(c.oid, p.tenant_column), p.access) AS is_enforced
      FROM tenancy_internal.examined_tables(tables) e JOIN pg_class c ON c.oid = e
      JOIN tenancy_internal.protected_tables p ON p.relation = c.oid
)
SELECT 'policy', 'ok', format('%s of %s protected tables are enforced.', count(*) FILTER (WHERE e.is_enforced), count(*)), NULL::text
  FROM examined e HAVING count(*) > 0 AND bool_and(e.is_enforced)
 UNION ALL
SELECT 'privilege', 'broken', format('Role "%s" may not use schema %s.', pg_get_userbyid(who), n.nspname),
       format('GRANT USAGE ON SCHEMA %I TO %s', n.nspname, who::regrole)
  FROM (SELECT DISTINCT relnamespace FROM examined) e JOIN pg_namespace n ON n.oid = e.relnamespace
 WHERE NOT has_schema_privilege(who, n.oid, 'USAGE')
 UNION ALL
SELECT 'privilege', 'note', format('Role "%s" may not read %s.', pg_get_userbyid(who), e.oid::regclass),
       format('GRANT SELECT ON %s TO %s', e.oid::regclass, who::regrole)
  FROM examined e
 WHERE NOT has_table_privilege(who, e.oid, 'SELECT') AND NOT has_any_column_privilege(who, e.oid, 'SELECT')
   AND (tables IS NOT NULL OR NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = e.oid))
 UNION ALL
SELECT 'statistics', 'note', format('%s was never analyzed: the planner guesses how many rows a tenant has.', e.oid::regclass),
       format('ANALYZE %s', e.oid::regclass)
  FROM examined e
  LEFT JOIN pg_stat_all_tables s ON s.relid = e.oid
 WHERE e.relkind = 'r' AND e.access <> 'reference' AND s.last_analyze IS NULL AND s.last_autoanalyze IS NULL AND e.reltuples < 0
$$;

-- How many rows a tenant has, by the key that each table holds. The caller's rights.
CREATE FUNCTION tenancy_internal.diagnose_rows(tables regclass[], known tenancy.tenants)
RETURNS TABLE (link text, state text, detail text, remedy text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
    own bigint;
    others boolean;
    nobodys boolean;
BEGIN
    FOR t IN SELECT p.relation, p.tenant_column, p.tenant_key FROM tenancy.protected_tables p
              WHERE p.access <> 'reference' AND p.part_of IS NULL AND (tables IS NULL OR p.relation = ANY (tables)) LOOP
        BEGIN
            EXECUTE format('SELECT count(*) FROM %s WHERE %I = $1.%I', t.relation, t.tenant_column, t.tenant_key)
               INTO own USING known;
            IF own = 0 THEN
                EXECUTE format('SELECT EXISTS (SELECT FROM %1$s WHERE %2$I IS NOT NULL), EXISTS (SELECT FROM %1$s WHERE %2$I IS NULL)',
                               t.relation, t.tenant_column) INTO others, nobodys;
            END IF;
            RETURN QUERY SELECT 'rows', CASE WHEN own > 0 THEN 'ok' ELSE 'note' END,
                CASE WHEN own > 0 THEN format('%s has %s rows of "%s".', t.relation, own, known.code)
                     WHEN others THEN format('%s has rows of other tenants and none of "%s": column %I holds the tenant''s %s.', t.relation, known.code, t.tenant_column, t.tenant_key)
                     WHEN nobodys THEN format('%s has rows without a tenant only.', t.relation)
                     ELSE format('%s is empty.', t.relation) END,
                CASE WHEN own = 0 AND nobodys THEN format('SELECT tenancy.protect_table(%L, assign_existing_rows_to => %L)', t.relation::text, known.code) END;
        EXCEPTION WHEN insufficient_privilege OR object_not_in_prerequisite_state THEN
            RETURN QUERY SELECT 'rows', 'note', format('%s was not counted: %s.', t.relation, SQLERRM), NULL::text;
        END;
    END LOOP;
END $$;

INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'SELECT', 'TABLE', '{tenancy.accepted_findings}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.integrity_report, tenancy.assert_integrity, tenancy.health,
        tenancy.set_check, tenancy.accept_finding, tenancy.unaccept_finding, tenancy.diagnose,
        tenancy_internal.accept_finding_step, tenancy_internal.has_looked, tenancy_internal.integrity_sources_of_checks,
        tenancy_internal.examined_tables, tenancy_internal.must_be_a_check, tenancy_internal.diagnose_tables,
        tenancy_internal.diagnose_rows}');

COMMENT ON FUNCTION tenancy.integrity_report(text, regclass[], integer, boolean) IS
    'what was examined, what was not and why, and what was found, as one document';
COMMENT ON FUNCTION tenancy.assert_integrity(text, regclass[], boolean) IS
    'raises 23514 where check_integrity finds an error, or where nothing was examined; for the CI of an application';
COMMENT ON FUNCTION tenancy.health() IS 'a line for each part of what keeps tenants apart; reads no rows';
COMMENT ON FUNCTION tenancy.set_check(text, boolean, text) IS
    'switches a check of check_integrity, or gives it another severity; without both puts back what it was installed with';
COMMENT ON FUNCTION tenancy.accept_finding(text, text, text, timestamptz) IS
    'leaves a finding out of check_integrity, with a reason, until a date or until its object changes';
COMMENT ON FUNCTION tenancy.unaccept_finding(text, text) IS 'takes back what tenancy.accept_finding did';
COMMENT ON FUNCTION tenancy.diagnose(text, regrole, regclass) IS
    'walks from a role to its rows and says which link is broken: for "it sees another tenant''s data", "it sees nothing", "it got slow"';
COMMENT ON FUNCTION tenancy_internal.has_looked(bigint, bigint) IS 'whether an examination saw anything';
COMMENT ON FUNCTION tenancy_internal.integrity_sources_of_checks() IS 'the function that finds what a check is about';
COMMENT ON FUNCTION tenancy_internal.examined_tables(regclass[]) IS 'the protected tables among those given, or all';
COMMENT ON FUNCTION tenancy_internal.must_be_a_check(text) IS 'refuses what is no check';
COMMENT ON FUNCTION tenancy_internal.accept_finding_step(text, text, text, timestamptz, text[]) IS 'puts an accepted finding on record';
COMMENT ON FUNCTION tenancy_internal.diagnose_tables(regclass[], oid) IS 'what a role meets on the way to protected tables';
COMMENT ON FUNCTION tenancy_internal.diagnose_rows(regclass[], tenancy.tenants) IS 'how many rows a tenant has in protected tables';
