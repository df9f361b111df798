-- room integrity, isolation proven by behaviour
-- Everything happens in subtransactions that are rolled back; variables of PL/pgSQL keep what was seen. What may run code of
-- users (triggers, defaults, policies) runs as the role or as the table's owner, confined: it cannot become the caller.

CREATE TYPE tenancy_internal.proof AS (
    relation oid,
    role     oid,
    command  text,
    probe    text,
    expected text,
    got      text,
    ok       boolean     -- NULL: not proven
);

-- The probes and what must come of them. Two tenants have a part: one whose rows are at stake, and another one. Context: own
-- is the former, foreign the latter; none; stale is the former as an earlier transaction may have left it.
CREATE FUNCTION tenancy_internal.isolation_probes()
RETURNS TABLE (number integer, command text, probe text, access text[], context text, expected text, is_control boolean)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
VALUES
    ( 1, 'SELECT', 'own',     '{tenant,shared}'::text[], 'own',     'own rows',        true),
    ( 2, 'SELECT', 'foreign', '{tenant,shared}',         'foreign', 'no rows',         false),
    ( 3, 'SELECT', 'none',    '{tenant,shared}',         'none',    'refused (55000)', false),
    ( 4, 'SELECT', 'stale',   '{tenant,shared}',         'stale',   'refused (55000)', false),
    ( 5, 'SELECT', 'shared',  '{shared}',                'own',     'shared rows',     true),
    ( 6, 'SELECT', 'any',     '{reference}',             'own',     'rows',            true),
    (10, 'INSERT', 'own',     '{tenant,shared}',         'own',     'one row',         true),
    (11, 'INSERT', 'foreign', '{tenant,shared}',         'foreign', 'refused (42501)', false),
    (12, 'INSERT', 'none',    '{tenant,shared}',         'none',    'refused (55000)', false),
    (13, 'INSERT', 'stale',   '{tenant,shared}',         'stale',   'refused (55000)', false),
    (14, 'INSERT', 'shared',  '{shared}',                'own',     'refused (42501)', false),
    (15, 'INSERT', 'any',     '{reference}',             'own',     'refused (42501)', false),
    (20, 'UPDATE', 'own',     '{tenant,shared}',         'own',     'one row',         true),
    (21, 'UPDATE', 'foreign', '{tenant,shared}',         'foreign', 'no rows',         false),
    (22, 'UPDATE', 'none',    '{tenant,shared}',         'none',    'refused (55000)', false),
    (23, 'UPDATE', 'stale',   '{tenant,shared}',         'stale',   'refused (55000)', false),
    (24, 'UPDATE', 'shared',  '{shared}',                'own',     'no rows',         false),
    (25, 'UPDATE', 'move',    '{tenant,shared}',         'own',     'refused (42501)', false),
    (26, 'UPDATE', 'give',    '{shared}',                'own',     'refused (42501)', false),
    (27, 'UPDATE', 'any',     '{reference}',             'own',     'no rows',         false),
    (30, 'DELETE', 'own',     '{tenant,shared}',         'own',     'one row',         true),
    (31, 'DELETE', 'foreign', '{tenant,shared}',         'foreign', 'no rows',         false),
    (32, 'DELETE', 'none',    '{tenant,shared}',         'none',    'refused (55000)', false),
    (33, 'DELETE', 'stale',   '{tenant,shared}',         'stale',   'refused (55000)', false),
    (34, 'DELETE', 'shared',  '{shared}',                'own',     'no rows',         false),
    (35, 'DELETE', 'any',     '{reference}',             'own',     'no rows',         false),
    (40, 'UPSERT', 'own',     '{tenant,shared}',         'own',     'one row',         true),
    (41, 'UPSERT', 'foreign', '{tenant,shared}',         'foreign', 'refused (42501)', false),
    (42, 'UPSERT', 'take',    '{tenant,shared}',         'foreign', 'refused (42501)', false),
    (43, 'UPSERT', 'none',    '{tenant,shared}',         'none',    'refused (55000)', false),
    (44, 'UPSERT', 'stale',   '{tenant,shared}',         'stale',   'refused (55000)', false)
$$;

-- What must come of a probe here: settings and bindings say what a missing, stale or foreign context is.
CREATE FUNCTION tenancy_internal.expected_of(
    command text, probe text, context text, expected text, missing text, lifetime text, is_bound boolean
) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN context = 'foreign' AND is_bound THEN 'refused (42501)'
            WHEN context = 'stale' AND lifetime = 'session' OR context IN ('none', 'stale') AND is_bound
            THEN CASE command WHEN 'SELECT' THEN 'own rows' ELSE 'one row' END
            WHEN context IN ('none', 'stale') AND missing = 'empty'
            THEN CASE WHEN command IN ('INSERT', 'UPSERT') THEN 'refused (42501)' ELSE 'no rows' END
            ELSE expected END
$$;

-- Whether a probe says that isolation holds; NULL where it says nothing: something else was in the way, or what should be
-- possible is not either.
CREATE FUNCTION tenancy_internal.verdict_of(is_control boolean, expected text, got text, control_works boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN got LIKE 'error%' THEN NULL
            WHEN is_control THEN CASE WHEN got = expected THEN true WHEN got = 'foreign rows' THEN false END
            WHEN got = 'refused (55000)' AND expected = got THEN true    -- said of the context, before any row was looked at
            WHEN got = expected OR got LIKE 'refused%' AND expected IN ('no rows', 'refused (42501)', 'refused (55000)')
            THEN CASE WHEN control_works THEN true END
            WHEN got = 'no rows' AND control_works IS NOT TRUE THEN NULL    -- it sees nothing at all, whatever the context
            ELSE false END
$$;

-- The literals in a deparsed expression: what a CHECK or a partition's bound allows is mostly among them.
CREATE FUNCTION tenancy_internal.literals_of(expression text) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT COALESCE(array_agg(COALESCE(replace(m[1], '''''', ''''), m[2])), '{}')
  FROM regexp_matches(expression, '''((?:[^'']|'''')*)''|(?<![[:alnum:]_."])(-?[0-9]+(?:\.[0-9]+)?)', 'g') AS m
$$;

-- The columns of a table with values to try, the likeliest first; another salt gives other ones.
CREATE FUNCTION tenancy_internal.proof_values(target oid, salt bigint)
RETURNS TABLE (name text, number int2, type oid, is_required boolean, is_routed boolean, is_given boolean, candidates text[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
RETURN QUERY
WITH RECURSIVE base(number, type, modifier, not_null) AS (
    SELECT a.attnum, a.atttypid, a.atttypmod, a.attnotnull
      FROM pg_attribute a WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
     UNION ALL
    SELECT b.number, t.typbasetype, t.typtypmod, b.not_null OR t.typnotnull
      FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
), bounds(text) AS (
    SELECT pg_get_partition_constraintdef(target)
     UNION ALL
    (SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_partition_tree(target) p JOIN pg_class c ON c.oid = p.relid
      WHERE p.isleaf AND p.relid <> target AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT' LIMIT 5)
), keys(name) AS (
    SELECT k.attname
      FROM pg_partitioned_table p JOIN pg_attribute k ON k.attrelid = p.partrelid AND k.attnum = ANY (p.partattrs::int2[])
     WHERE p.partrelid = target OR p.partrelid IN (SELECT a.relid FROM pg_partition_ancestors(target) a)
)
SELECT a.attname::text, a.attnum, t.oid,
       (b.not_null OR r.is_routed) AND NOT a.atthasdef AND a.attidentity = '' OR r.is_routed AND a.attidentity = '',
       r.is_routed, a.attgenerated = '' AND a.attidentity <> 'a',
       array_remove(
           CASE WHEN r.is_routed THEN ARRAY(SELECT l FROM bounds, unnest(tenancy_internal.literals_of(bounds.text)) l)
                ELSE '{}' END
           || ARRAY(SELECT l FROM pg_constraint k, unnest(tenancy_internal.literals_of(pg_get_constraintdef(k.oid))) l
                     WHERE k.contype = 'c' AND (k.conrelid = target AND a.attnum = ANY (k.conkey) OR k.contypid = a.atttypid))
           || CASE WHEN t.typname = 'int2' THEN ARRAY[(salt % 30000 + 1)::text, '1', '0']
                   WHEN t.typname = 'int4' THEN ARRAY[(salt % 2000000000 + 1)::text, '1', '0']
                   WHEN t.typname = 'numeric' AND b.modifier > 0
                   THEN ARRAY[mod(salt, (10::numeric ^ LEAST(((b.modifier - 4) >> 16) - ((b.modifier - 4) & 2047), 15))::bigint)::text, '1', '0']
                   WHEN t.typcategory = 'N' AND t.typname IN ('int8', 'numeric', 'float4', 'float8', 'money')
                   THEN ARRAY[CASE t.typname WHEN 'money' THEN '1' ELSE salt::text END, '1', '0']
                   WHEN t.typcategory = 'S' AND t.typname <> 'char' THEN ARRAY(
                       SELECT CASE WHEN b.modifier > 4 AND length(s.v) > b.modifier - 4 THEN right(s.v, b.modifier - 4) ELSE s.v END
                         FROM unnest(ARRAY['proof ' || salt, salt::text, 'proof' || salt || '@example.com',
                                           'https://example.com/' || salt, 'P' || salt]) AS s(v))
                   WHEN t.typtype = 'e' THEN ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid
                                                    ORDER BY e.enumsortorder LIMIT 3)
                   WHEN t.typcategory = 'A' OR t.typtype = 'm' THEN ARRAY['{}']
                   WHEN t.typtype = 'r' THEN ARRAY['empty']
                   WHEN t.typtype = 'c' THEN ARRAY['(' || repeat(',', (SELECT count(*)::int - 1 FROM pg_attribute f
                                                    WHERE f.attrelid = t.typrelid AND f.attnum > 0)) || ')']
                   ELSE ARRAY[CASE t.typname
                       WHEN 'bool' THEN 'true' WHEN 'uuid' THEN md5(salt::text || a.attname)::uuid::text
                       WHEN 'timestamptz' THEN now()::text WHEN 'timestamp' THEN now()::text WHEN 'date' THEN current_date::text
                       WHEN 'time' THEN '12:00' WHEN 'timetz' THEN '12:00+00' WHEN 'interval' THEN '1 hour'
                       WHEN 'json' THEN '{}' WHEN 'jsonb' THEN '{}' WHEN 'xml' THEN '<a/>' WHEN 'bytea' THEN '\x00'
                       WHEN 'inet' THEN '192.0.2.1' WHEN 'cidr' THEN '192.0.2.0/24' WHEN 'macaddr' THEN '02:00:00:00:00:01'
                       WHEN 'macaddr8' THEN '02:00:00:00:00:00:00:01' WHEN 'bit' THEN repeat('0', GREATEST(b.modifier, 1))
                       WHEN 'varbit' THEN '0' WHEN 'point' THEN '(0,0)' WHEN 'box' THEN '(0,0),(1,1)'
                       WHEN 'lseg' THEN '[(0,0),(1,1)]' WHEN 'path' THEN '[(0,0),(1,1)]' WHEN 'circle' THEN '<(0,0),1>'
                       WHEN 'polygon' THEN '((0,0),(1,1),(1,0))' WHEN 'line' THEN '{1,1,1}' WHEN 'tsvector' THEN 'proof'
                       WHEN 'tsquery' THEN 'proof' WHEN 'oid' THEN '0' WHEN 'char' THEN 'P' WHEN 'ltree' THEN 'proof'
                       WHEN 'hstore' THEN '' END] END, NULL)
  FROM pg_attribute a JOIN base b ON b.number = a.attnum JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd'
 CROSS JOIN LATERAL (SELECT a.attname IN (SELECT k.name FROM keys k)) AS r(is_routed)
 WHERE a.attrelid = target ORDER BY a.attnum;
END $$;

-- Runs a statement and says what came of it: {answer}, of one jsonb or of how many rows it had to do with, or {code, message,
-- constraint}. Called by confined_step, with another role's rights; hence it names nothing but what everybody has.
CREATE FUNCTION tenancy_internal.run_text(path text, statement text, counts boolean) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    answer jsonb;
    changed bigint;
    code text;
    message text;
    failed text;
BEGIN
    PERFORM set_config('search_path', path, true);
    IF counts THEN
        EXECUTE statement;
        GET DIAGNOSTICS changed = ROW_COUNT;
    ELSE
        EXECUTE statement INTO answer;
    END IF;
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    RETURN jsonb_build_object('answer', COALESCE(answer, to_jsonb(changed)));
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, failed = CONSTRAINT_NAME;
    RETURN jsonb_build_object('code', code, 'message', message, 'constraint', failed);
END $$;

-- As a table's owner, whom its triggers and defaults are written by. Nobody else's rights are lent to them.
CREATE FUNCTION tenancy_internal.run_as_owner(target oid, path text, statement text) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenancy_internal.confined_step(c.relowner, false, path, statement, false)::jsonb FROM pg_class c WHERE c.oid = target
$$;

-- The search_path that sessions of a role begin with, for triggers and defaults that name nothing in full.
CREATE FUNCTION tenancy_internal.path_of(role oid, otherwise text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE((SELECT substr(c, strpos(c, '=') + 1)
                       FROM pg_db_role_setting s, unnest(s.setconfig) c
                      WHERE s.setrole IN (0, role) AND c LIKE 'search_path=%'
                        AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
                      ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1), otherwise)
$$;

CREATE FUNCTION tenancy_internal.tenant_key(tenant uuid, kind text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE kind WHEN 'id' THEN t.id::text WHEN 'number' THEN t.number::text ELSE t.code END
      FROM tenancy.tenants t WHERE t.id = tenant
$$;

-- Makes a row of a tenant, and those that it refers to. {given, row, place}, or {problem}.
CREATE FUNCTION tenancy_internal.make_row(target oid, tenant uuid, fixed jsonb, salt bigint, depth integer, path text)
RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    table_name text := target::regclass;
    own record;
    k record;
    c record;
    fits text;
    parent jsonb;
    chosen jsonb := '{}';   -- how many candidates of a column were tried
    next jsonb;
    given jsonb;
    fresh boolean := false; -- rows that are there already are taken by others
    made jsonb;
    code text;
    failed text;
    problem text;
BEGIN
    IF depth > 6 THEN
        RETURN jsonb_build_object('problem', format('foreign keys that must not be null lead in a circle at %s', table_name));
    END IF;
    SELECT p.tenant_column, p.tenant_key, p.access INTO own FROM tenancy.protected_tables p WHERE p.relation = target;
    IF own.tenant_column IS NOT NULL THEN
        fixed := jsonb_build_object(own.tenant_column, tenancy_internal.tenant_key(tenant, own.tenant_key)) || fixed;
    END IF;
    FOR attempt IN 1 .. 20 LOOP
        given := fixed;
        -- What foreign keys need.
        FOR k IN
            SELECT f.conname, f.confrelid, p.tenant_column, p.tenant_key,
                   ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY u(n, i)
                           JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = u.n ORDER BY u.i) AS columns,
                   ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY u(n, i)
                           JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = u.n ORDER BY u.i) AS parent_columns
              FROM pg_constraint f LEFT JOIN tenancy.protected_tables p ON p.relation = f.confrelid
             WHERE f.conrelid = target AND f.contype = 'f' ORDER BY cardinality(f.conkey) DESC, f.conname
        LOOP
            CONTINUE WHEN NOT EXISTS (SELECT FROM tenancy_internal.proof_values(target, salt) v
                                       WHERE v.name = ANY (k.columns)
                                         AND (v.is_required AND NOT given ? v.name OR k.columns = ARRAY[own.tenant_column::text]));
            IF k.confrelid = 'tenancy.tenants'::regclass THEN
                SELECT to_jsonb(t) INTO parent FROM tenancy.tenants t WHERE t.id = tenant;
            ELSE
                SELECT string_agg(format('p.%I = %L', q.name, q.value), ' AND ') INTO fits FROM (
                    SELECT k.parent_columns[i] AS name, given ->> k.columns[i] AS value
                      FROM generate_subscripts(k.columns, 1) i WHERE given ? k.columns[i]
                     UNION
                    SELECT k.tenant_column, tenancy_internal.tenant_key(tenant, k.tenant_key) WHERE k.tenant_column IS NOT NULL) AS q;
                parent := NULL;
                IF NOT fresh OR k.confrelid = target THEN
                    parent := NULLIF(tenancy_internal.run_as_owner(k.confrelid, path, format(
                        'SELECT pg_catalog.to_jsonb(p) FROM %s p WHERE %s LIMIT 1', k.confrelid::regclass, COALESCE(fits, 'true')))
                        -> 'answer', 'null');
                END IF;
                IF parent IS NULL AND k.confrelid = target THEN
                    -- The first row of a tree refers to itself.
                    SELECT jsonb_object_agg(v.name, COALESCE(given -> v.name, to_jsonb(v.candidates[1]))) INTO parent
                      FROM tenancy_internal.proof_values(target, salt) v WHERE v.name = ANY (k.parent_columns);
                    given := given || parent;
                ELSIF parent IS NULL THEN
                    made := tenancy_internal.make_row(k.confrelid, tenant, COALESCE((
                        SELECT jsonb_object_agg(k.parent_columns[i], given -> k.columns[i])
                          FROM generate_subscripts(k.columns, 1) i WHERE given ? k.columns[i]), '{}'), salt + 1, depth + 1, path);
                    IF made ? 'problem' THEN
                        RETURN made;
                    END IF;
                    parent := made -> 'row';
                END IF;
            END IF;
            SELECT given || COALESCE(jsonb_object_agg(k.columns[i], parent -> k.parent_columns[i]), '{}') INTO given
              FROM generate_subscripts(k.columns, 1) i WHERE NOT given ? k.columns[i];
        END LOOP;
        -- What else must not be null.
        FOR c IN SELECT * FROM tenancy_internal.proof_values(target, salt) v WHERE v.is_required AND NOT given ? v.name LOOP
            IF cardinality(c.candidates) = 0 THEN
                RETURN jsonb_build_object('problem', format('there is no value to try for column %I of %s', c.name, table_name));
            END IF;
            given := given || jsonb_build_object(c.name,
                c.candidates[LEAST(COALESCE((chosen ->> c.name)::int, 1), cardinality(c.candidates))]);
        END LOOP;
        made := tenancy_internal.run_as_owner(target, path, format(
            'INSERT INTO %s AS r %s RETURNING pg_catalog.jsonb_build_object(''row'', pg_catalog.to_jsonb(r), '
            '''place'', pg_catalog.format(''ctid = %%L AND tableoid = %%s'', r.ctid, r.tableoid::pg_catalog.oid))', table_name,
            CASE WHEN given = '{}' THEN 'DEFAULT VALUES' ELSE tenancy_internal.values_clause(given, '') END));
        IF made -> 'answer' = 'null' THEN
            RETURN jsonb_build_object('problem', format('a trigger of %s keeps the row from being written', table_name));
        ELSIF made ? 'answer' THEN
            RETURN (made -> 'answer') || jsonb_build_object('given', given);
        END IF;
        code := made ->> 'code';
        failed := made ->> 'constraint';
        problem := made ->> 'message';
        IF code IN ('23505', '23P01', '23503') THEN
            fresh := true;
            salt := salt + 7919;
        ELSIF code = '23514' OR code LIKE '22%' THEN
            -- The next value for the columns of that constraint; without one, for those that tell the partition, or all.
            SELECT jsonb_object_agg(v.name, COALESCE((chosen ->> v.name)::int, 1) + 1) INTO next
              FROM tenancy_internal.proof_values(target, salt) v
             WHERE NOT fixed ? v.name AND CASE WHEN failed <> '' THEN EXISTS (
                            SELECT FROM pg_constraint n WHERE n.conname = failed AND n.conrelid = target AND v.number = ANY (n.conkey)
                                                           OR n.conname = failed AND n.contypid = (
                                   SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = target AND a.attnum = v.number))
                        ELSE code <> '23514' OR v.is_routed END
               AND cardinality(v.candidates) > COALESCE((chosen ->> v.name)::int, 1);
            EXIT WHEN next IS NULL;
            chosen := chosen || next;
        ELSE
            EXIT;
        END IF;
    END LOOP;
    RETURN jsonb_build_object('problem', format('no row could be made in %s: %s', table_name, problem), 'given', given);
END $$;

CREATE FUNCTION tenancy_internal.values_clause(given jsonb, overriding text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('(%s)%s VALUES (%s)', string_agg(quote_ident(key), ', ' ORDER BY key), overriding,
                  string_agg(quote_nullable(value), ', ' ORDER BY key))
      FROM jsonb_each_text(given)
$$;

-- Any row will do where the owner himself may write none, and nobody is to change it.
CREATE FUNCTION tenancy_internal.existing_row(target oid, condition text, path text) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT NULLIF(tenancy_internal.run_as_owner(target, path, format(
        'SELECT pg_catalog.jsonb_build_object(''row'', pg_catalog.to_jsonb(r), ''given'', pg_catalog.to_jsonb(r), '
        '''place'', pg_catalog.format(''ctid = %%L AND tableoid = %%s'', r.ctid, r.tableoid::pg_catalog.oid)) '
        'FROM %s r WHERE %s LIMIT 1', target::regclass, condition)) -> 'answer', 'null')
$$;

-- Two tenants and rows of theirs: made for the purpose, or existing ones where partitions take no others.
CREATE FUNCTION tenancy_internal.set_stage(target oid, bound uuid, path text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    p record;
    pair record;
    x uuid;
    y uuid;
    stage jsonb;
    made jsonb;
    given jsonb;
    problem text;
    salt bigint := (random() * 1e8)::bigint * 10 + 1000000000;
BEGIN
    SELECT t.tenant_column, t.tenant_key, t.access INTO p FROM tenancy.protected_tables t WHERE t.relation = target;
    FOR pair IN
        SELECT bound AS x, NULL::uuid AS y, 0 AS rank WHERE bound IS NOT NULL
         UNION ALL
        -- As often as it may take to meet a partition of a hash of the tenant.
        SELECT NULL, NULL, 1 FROM generate_series(1, CASE WHEN pg_get_partition_constraintdef(target) LIKE '%satisfies_hash_partition%'
                                                         THEN 12 ELSE 1 END) WHERE bound IS NULL
         UNION ALL
        (SELECT t.id, (SELECT o.id FROM tenancy.tenants o WHERE o.status = 'active' AND o.id <> t.id ORDER BY o.number LIMIT 1), 2
           FROM tenancy.tenants t
          WHERE t.status = 'active' AND bound IS NULL AND p.access <> 'reference'
            AND EXISTS (SELECT FROM tenancy_internal.proof_values(target, 1) v
                         WHERE v.is_routed AND v.name = p.tenant_column
                           AND tenancy_internal.tenant_key(t.id, p.tenant_key) = ANY (v.candidates))
          ORDER BY t.number LIMIT 3)
         ORDER BY 3
    LOOP
        BEGIN
            problem := NULL;
            made := NULL;
            x := COALESCE(pair.x, tenancy.create_tenant('proof-' || substr(md5(random()::text), 1, 12)));
            y := COALESCE(pair.y, tenancy.create_tenant('proof-' || substr(md5(random()::text), 1, 12)));
            PERFORM tenancy_internal.switch_tenant_step(x::text);
            IF p.access = 'reference' THEN
                -- Values to be refused, and any row: the owner himself writes none.
                BEGIN
                    given := tenancy_internal.make_row(target, x, '{}', salt + 500, 0, path) -> 'given';
                    RAISE EXCEPTION 'seen' USING ERRCODE = 'triggered_action_exception', HINT = 'This is rolled back.';
                EXCEPTION WHEN triggered_action_exception THEN
                    made := tenancy_internal.existing_row(target, 'true', path);
                END;
            END IF;
            made := COALESCE(made, tenancy_internal.make_row(target, x, '{}', salt, 0, path));
            problem := made ->> 'problem';
            IF problem IS NULL AND p.access = 'reference' THEN
                made := made || jsonb_build_object('given', given);
            END IF;
            IF problem IS NOT NULL THEN
                RAISE EXCEPTION 'nothing to try with' USING HINT = 'Try the next tenants.', ERRCODE = 'triggered_action_exception';
            END IF;
            stage := jsonb_build_object('x', x, 'y', y, 'is_made', pair.x IS NULL, 'own', made, 'access', p.access,
                'column', p.tenant_column, 'x_key', tenancy_internal.tenant_key(x, p.tenant_key),
                'y_key', tenancy_internal.tenant_key(y, p.tenant_key),
                'columns', (SELECT jsonb_agg(to_jsonb(v) - '{type,is_required,candidates}'::text[] ORDER BY v.number)
                              FROM tenancy_internal.proof_values(target, 1) v));
            EXIT;
        EXCEPTION WHEN OTHERS THEN
            problem := COALESCE(problem, SQLERRM);
        END;
    END LOOP;
    IF stage IS NULL THEN
        -- Enough to be refused for want of a privilege.
        RETURN jsonb_build_object('problem', problem, 'x', tenancy.create_tenant('proof-' || substr(md5(random()::text), 1, 12)));
    END IF;
    IF p.access <> 'reference' THEN
        -- The other tenant's, and nobody's; the proof goes on without them.
        BEGIN
            PERFORM tenancy_internal.switch_tenant_step(y::text);
            made := tenancy_internal.make_row(target, y, '{}', salt + 1000, 0, path);
        EXCEPTION WHEN OTHERS THEN
            made := NULL;
        END;
    END IF;
    IF p.access = 'shared' THEN
        BEGIN
            PERFORM tenancy_internal.switch_tenant_step(x::text);
            made := tenancy_internal.make_row(target, x, jsonb_build_object(p.tenant_column, NULL), salt + 2000, 0, path);
            IF made ? 'problem' THEN
                made := tenancy_internal.existing_row(target, format('%I IS NULL', p.tenant_column), path);
            END IF;
            IF made IS NOT NULL THEN
                stage := stage || jsonb_build_object('shared', made);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            made := NULL;
        END;
    END IF;
    RETURN stage;
END $$;

-- The statement of a probe; SELECT tells whether rows of the tenant at stake are seen, and of others. NULL where the table or
-- the role's privileges leave nothing to try.
CREATE FUNCTION tenancy_internal.probe_statement(target oid, role oid, command text, probe text, stage jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := target::regclass;
    own text := stage ->> 'column';
    x text;
    y text;
    aim text;           -- which row
    sees_all boolean := has_table_privilege(role, target, 'SELECT');
    given jsonb := stage #> '{own,given}';
    moved jsonb;
    changed text;       -- a column to update
    keyed text[];
BEGIN
    IF stage ->> 'access' = 'reference' THEN
        aim := stage #>> '{own,place}';
    ELSE
        x := format('%I = %L', own, stage ->> 'x_key');
        y := quote_literal(stage ->> 'y_key');
        moved := jsonb_build_object(own, stage -> 'y_key');
        -- A tenant that was made has no other rows; another one's are many, and the place of one is told by a column of the system.
        aim := CASE WHEN probe = 'shared' THEN format('%I IS NULL AND %s', own, stage #>> '{shared,place}')
                    WHEN (stage ->> 'is_made')::boolean THEN x
                    WHEN sees_all THEN x || ' AND ' || (stage #>> '{own,place}') END;
    END IF;
    IF command = 'SELECT' THEN
        RETURN CASE WHEN stage ->> 'access' = 'reference' THEN format('SELECT pg_catalog.jsonb_build_array(EXISTS (SELECT FROM %s), false)', t)
                    WHEN probe = 'shared' AND stage ? 'shared'
                    THEN format('SELECT pg_catalog.jsonb_build_array(EXISTS (SELECT FROM %s WHERE %I IS NULL), false)', t, own)
                    WHEN probe <> 'shared'
                    THEN format('SELECT pg_catalog.jsonb_build_array(EXISTS (SELECT FROM %1$s WHERE %2$s), '
                                'EXISTS (SELECT FROM %1$s WHERE NOT (%2$s)))', t, x) END;
    ELSIF command = 'INSERT' THEN
        RETURN format('INSERT INTO %s %s', t, CASE
            WHEN probe = 'shared' THEN tenancy_internal.values_clause(given || jsonb_build_object(own, NULL), '')
            WHEN given = '{}' THEN 'DEFAULT VALUES'
            ELSE tenancy_internal.values_clause(
                (SELECT jsonb_object_agg(g.key, g.value) FROM jsonb_each(given) g
                   JOIN jsonb_array_elements(stage -> 'columns') v ON v ->> 'name' = g.key AND (v ->> 'is_given')::boolean), '') END);
    ELSIF command = 'DELETE' THEN
        RETURN format('DELETE FROM %s WHERE %s', t, aim);
    END IF;
    -- A key of all tenants is the more dangerous one; without one there is nothing for ON CONFLICT.
    SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a
                  WHERE a.attrelid = target AND a.attnum = ANY (i.indkey::int2[]) ORDER BY a.attnum)
      INTO keyed
      FROM pg_index i
     WHERE i.indrelid = target AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
       AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attnum = ANY (i.indkey::int2[])
                          AND (stage #>> ARRAY['own', 'row', a.attname::text] IS NULL OR a.attgenerated <> ''))
     ORDER BY EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attnum = ANY (i.indkey::int2[])
                         AND a.attname = own), i.indisprimary DESC, i.indexrelid LIMIT 1;
    SELECT v.name INTO changed
      FROM jsonb_to_recordset(stage -> 'columns') AS v(name text, number int2, is_routed boolean, is_given boolean)
     WHERE v.is_given AND has_column_privilege(role, target, v.number, 'UPDATE') AND has_column_privilege(role, target, v.number, 'SELECT')
     ORDER BY v.name IS NOT DISTINCT FROM own, v.name = ANY (keyed), v.is_routed, v.number LIMIT 1;
    IF command = 'UPDATE' THEN
        RETURN CASE probe WHEN 'move' THEN format('UPDATE %s SET %I = %s WHERE %s', t, own, y, aim)
                          WHEN 'give' THEN format('UPDATE %s SET %I = NULL WHERE %s', t, own, aim)
                          ELSE format('UPDATE %s SET %I = %2$I WHERE %s', t, changed, aim) END;
    END IF;
    IF keyed IS NULL OR changed IS NULL OR probe = 'take' AND own = ANY (keyed) THEN
        RETURN NULL;
    END IF;
    SELECT given || jsonb_object_agg(n, stage #> ARRAY['own', 'row', n]) INTO given FROM unnest(keyed) n;
    RETURN format('INSERT INTO %s %s ON CONFLICT (%s) DO UPDATE SET %I = EXCLUDED.%4$I', t,
                  tenancy_internal.values_clause(CASE probe WHEN 'take' THEN given || moved ELSE given END, ' OVERRIDING SYSTEM VALUE'),
                  (SELECT string_agg(quote_ident(n), ', ') FROM unnest(keyed) n), changed);
END $$;

-- Whether a role has anything of a command to try.
CREATE FUNCTION tenancy_internal.may_try(target oid, role oid, command text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT has_schema_privilege(role, c.relnamespace, 'USAGE')
       AND CASE command WHEN 'DELETE' THEN has_table_privilege(role, target, 'DELETE')
                        WHEN 'UPSERT' THEN has_any_column_privilege(role, target, 'INSERT')
                                       AND has_any_column_privilege(role, target, 'UPDATE')
                                       AND has_any_column_privilege(role, target, 'SELECT')
                        ELSE has_any_column_privilege(role, target, command) END
      FROM pg_class c WHERE c.oid = target
$$;

-- What foreign keys make of a row of the tenant's in a table that has rows of all tenants, too, when a role deletes the row
-- that it refers to or changes its key. Keys whose actions leave the tenant column alone are not tried.
CREATE FUNCTION tenancy_internal.probe_actions(target oid, role oid, bound uuid, path text, stage jsonb)
RETURNS TABLE (command text, got text, ok boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    own text := stage ->> 'column';
    k record;
    salt bigint := (random() * 1e8)::bigint * 10 + 1000000000;
    parent jsonb;
    child jsonb;
    counted text := format('SELECT pg_catalog.to_jsonb(pg_catalog.count(*)) FROM %s WHERE %I IS NULL', target::regclass, stage ->> 'column');
    before jsonb;
    answer jsonb;
BEGIN
    FOR k IN
        SELECT f.confrelid, v.command, v.is_cascade, c.columns, c.parent_columns, c.paired,
               (SELECT u FROM unnest(c.parent_columns) u WHERE u <> c.paired LIMIT 1) AS other
          FROM pg_constraint f
         CROSS JOIN LATERAL (VALUES ('DELETE', f.confdeltype IN ('n', 'd'), false),
                                    ('UPDATE', f.confupdtype IN ('n', 'd'), false),
                                    ('UPDATE', f.confupdtype = 'c', true)) AS v(command, acts, is_cascade)
         CROSS JOIN LATERAL (
            SELECT array_agg(a.attname::text ORDER BY u.i) AS columns, array_agg(p.attname::text ORDER BY u.i) AS parent_columns,
                   max(p.attname::text) FILTER (WHERE a.attname = own) AS paired
              FROM unnest(f.conkey, f.confkey) WITH ORDINALITY u(n, m, i)
              JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = u.n
              JOIN pg_attribute p ON p.attrelid = f.confrelid AND p.attnum = u.m) AS c
         WHERE f.conrelid = target AND f.contype = 'f' AND v.acts AND c.paired IS NOT NULL
           AND tenancy_internal.may_try(f.confrelid, role, v.command)
         ORDER BY f.conname, v.command
    LOOP
        command := k.command;
        got := NULL;
        BEGIN
            PERFORM tenancy_internal.switch_tenant_step(stage ->> 'x');
            parent := tenancy_internal.make_row(k.confrelid, (stage ->> 'x')::uuid, jsonb_build_object(k.paired, stage -> 'x_key'),
                                                salt, 0, path);
            IF parent ? 'problem' THEN    -- the tenant's one row may be there already
                parent := COALESCE(tenancy_internal.existing_row(k.confrelid, format('%I = %L', k.paired, stage ->> 'x_key'), path), parent);
            END IF;
            IF NOT parent ? 'problem' THEN
                child := tenancy_internal.make_row(target, (stage ->> 'x')::uuid, (
                    SELECT jsonb_object_agg(k.columns[i], parent -> 'row' -> k.parent_columns[i])
                      FROM generate_subscripts(k.columns, 1) i), salt + 100, 0, path);
            END IF;
            got := 'error: ' || COALESCE(parent ->> 'problem', child ->> 'problem');
            IF got IS NULL THEN
                before := tenancy_internal.run_as_owner(target, path, counted) -> 'answer';
                answer := tenancy_internal.confined_step(role, bound IS NOT NULL, path, CASE
                    WHEN k.command = 'DELETE' THEN format('DELETE FROM %s WHERE %s', k.confrelid::regclass, parent ->> 'place')
                    ELSE format('UPDATE %s SET %I = %s WHERE %s', k.confrelid::regclass,
                                CASE WHEN k.is_cascade THEN k.paired ELSE COALESCE(k.other, k.paired) END,
                                COALESCE(CASE WHEN NOT k.is_cascade THEN (    -- an identity takes its next value and no other
                                    SELECT CASE WHEN v.is_given THEN quote_literal(v.candidates[1]) ELSE 'DEFAULT' END
                                      FROM tenancy_internal.proof_values(k.confrelid, salt + 200) v WHERE v.name = k.other) END, 'NULL'),
                                parent ->> 'place') END, true)::jsonb;
                got := CASE WHEN tenancy_internal.run_as_owner(target, path, counted) -> 'answer' <> before THEN 'row of all tenants'
                            WHEN answer ->> 'code' LIKE '23%' THEN format('refused (%s)', answer ->> 'code')
                            WHEN answer ? 'code' THEN format('error %s: %s', answer ->> 'code', answer ->> 'message')
                            WHEN answer ->> 'answer' = '1' THEN 'own row'
                            ELSE 'error: the row that it refers to is not the role''s to change' END;
            END IF;
            RAISE EXCEPTION 'seen' USING ERRCODE = 'triggered_action_exception', HINT = 'This is rolled back.';
        EXCEPTION WHEN OTHERS THEN
            got := COALESCE(got, format('error %s: %s', SQLSTATE, SQLERRM));
        END;
        ok := CASE WHEN got LIKE 'error%' THEN NULL ELSE got <> 'row of all tenants' END;
        RETURN NEXT;
    END LOOP;
END $$;

-- Probes one table as some roles, which are all bound to the same tenant, or to none.
CREATE FUNCTION tenancy_internal.prove_table(target oid, roles oid[], bound uuid, path text)
RETURNS TABLE (relation regclass, as_role regrole, command text, probe text, expected text, got text, ok boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_superuser boolean := (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user);
    stage jsonb;
    protection record;
    r record;
    b record;
    done text[];
    words text;
    outcome text;
    answer jsonb;
    sees_own boolean;
    sees_others boolean;
    works boolean;
    proven tenancy_internal.proof[] := '{}';
BEGIN
    SELECT p.access INTO protection FROM tenancy.protected_tables p WHERE p.relation = target;
    BEGIN
        IF is_superuser THEN
            SET LOCAL tenancy.fence_superusers = off;
        END IF;
        stage := tenancy_internal.set_stage(target, bound, tenancy_internal.path_of(roles[1], path));
        FOR r IN
            SELECT g.oid, g.rolname, tenancy_internal.path_of(g.oid, path) AS path
              FROM pg_roles g WHERE g.oid = ANY (roles) ORDER BY g.rolname
        LOOP
            done := '{}';
            works := NULL;
            FOR b IN
                SELECT i.*, tenancy_internal.expected_of(i.command, i.probe, i.context, i.expected,
                            current_setting('tenancy.missing_context'), current_setting('tenancy.context_lifetime'),
                            bound IS NOT NULL) AS wanted
                  FROM tenancy_internal.isolation_probes() i
                 WHERE protection.access = ANY (i.access) AND (i.command <> 'UPSERT' OR tenancy_internal.may_try(target, r.oid, 'UPSERT'))
                 ORDER BY i.number
            LOOP
                CONTINUE WHEN b.command = ANY (done);
                IF NOT tenancy_internal.may_try(target, r.oid, b.command) THEN
                    -- Tried all the same, once.
                    done := done || b.command;
                    words := format(CASE b.command WHEN 'SELECT' THEN 'SELECT pg_catalog.jsonb_build_array(EXISTS (SELECT FROM %s), false)'
                                                   WHEN 'INSERT' THEN 'INSERT INTO %s DEFAULT VALUES'
                                                   WHEN 'UPDATE' THEN 'UPDATE %s SET %I = NULL WHERE false'
                                                   ELSE 'DELETE FROM %s WHERE false' END, target::regclass,
                                    (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
                                        AND a.attgenerated = '' AND a.attidentity <> 'a' LIMIT 1));
                    b.probe := 'any';
                    b.wanted := 'no privilege';
                ELSIF stage ? 'problem' THEN
                    done := done || b.command;
                    proven := proven || (target, r.oid, b.command, 'any', 'a row to try with', stage ->> 'problem', NULL)::tenancy_internal.proof;
                    CONTINUE;
                ELSE
                    words := tenancy_internal.probe_statement(target, r.oid, b.command, b.probe, stage);
                    CONTINUE WHEN words IS NULL AND b.command = 'UPSERT';
                END IF;
                works := CASE WHEN b.is_control AND b.probe <> 'shared' THEN false WHEN protection.access = 'reference' THEN true
                              ELSE works END;
                outcome := CASE WHEN words IS NULL THEN 'error: nothing to try with these privileges' END;
                sees_own := NULL;
                IF outcome IS NULL THEN
                    BEGIN
                        IF b.command = 'INSERT' AND b.wanted <> 'no privilege' AND protection.access <> 'reference' THEN
                            -- Makes room for the same values once more.
                            PERFORM tenancy_internal.switch_tenant_step(stage ->> 'x');
                            PERFORM tenancy_internal.run_as_owner(target, r.path, format(
                                'WITH gone AS (DELETE FROM %s WHERE %s RETURNING 1) SELECT pg_catalog.to_jsonb(pg_catalog.count(*)) FROM gone',
                                target::regclass, stage #>> '{own,place}'));
                        END IF;
                        CASE WHEN b.context = 'none' THEN PERFORM tenancy_internal.leave_tenant_step();
                             WHEN b.context = 'own' THEN PERFORM tenancy_internal.switch_tenant_step(stage ->> 'x');
                             WHEN b.context = 'foreign' THEN PERFORM tenancy_internal.switch_tenant_step(stage ->> 'y');
                             ELSE PERFORM tenancy_internal.stale_tenant_step(stage ->> 'x');
                        END CASE;
                        SET LOCAL row_security = on;
                        -- A binding is the session's role's: that one is to be the session's, too.
                        answer := tenancy_internal.confined_step(r.oid, bound IS NOT NULL, r.path, words, b.command <> 'SELECT')::jsonb;
                        IF b.command = 'SELECT' THEN
                            sees_own := answer #> '{answer,0}';
                            sees_others := answer #> '{answer,1}';
                        END IF;
                        outcome := CASE WHEN answer ->> 'code' = '42501' AND b.wanted = 'no privilege' THEN b.wanted
                                        WHEN answer ->> 'code' IN ('42501', '55000') THEN format('refused (%s)', answer ->> 'code')
                                        WHEN answer ? 'code' THEN format('error %s: %s', answer ->> 'code', answer ->> 'message')
                                        WHEN b.command <> 'SELECT'
                                        THEN CASE answer ->> 'answer' WHEN '0' THEN 'no rows' WHEN '1' THEN 'one row' ELSE 'many rows' END
                                        WHEN b.probe = 'shared' THEN CASE WHEN sees_own THEN 'shared rows' ELSE 'no rows' END
                                        WHEN protection.access = 'reference' THEN CASE WHEN sees_own THEN 'rows' ELSE 'no rows' END
                                        WHEN CASE b.context WHEN 'foreign' THEN sees_own ELSE sees_others END THEN 'foreign rows'
                                        WHEN b.context = 'foreign' THEN 'no rows'
                                        WHEN sees_own THEN 'own rows' ELSE 'no rows' END;
                        RAISE EXCEPTION 'seen' USING ERRCODE = 'triggered_action_exception', HINT = 'This is rolled back.';
                    EXCEPTION WHEN OTHERS THEN
                        outcome := COALESCE(outcome, format('error %s: %s', SQLSTATE, SQLERRM));
                    END;
                END IF;
                IF b.is_control AND b.probe <> 'shared' THEN
                    works := COALESCE(sees_own, outcome = 'one row');
                END IF;
                proven := proven || (target, r.oid, b.command, b.probe, b.wanted, outcome,
                    CASE b.wanted WHEN 'no privilege' THEN outcome = b.wanted
                         ELSE tenancy_internal.verdict_of(b.is_control, b.wanted, outcome, works) END)::tenancy_internal.proof;
            END LOOP;
            IF protection.access = 'shared' AND NOT stage ? 'problem' THEN
                proven := proven || ARRAY(SELECT (target, r.oid, a.command, 'parent', 'own row', a.got, a.ok)::tenancy_internal.proof
                                            FROM tenancy_internal.probe_actions(target, r.oid, bound, r.path, stage) a);
            END IF;
        END LOOP;
        RAISE EXCEPTION 'seen' USING ERRCODE = 'triggered_action_exception', HINT = 'This is rolled back.';
    EXCEPTION WHEN OTHERS THEN
        IF SQLERRM <> 'seen' THEN
            RAISE;
        END IF;
    END;
    RETURN QUERY SELECT p.relation::regclass, p.role::regrole, p.command, p.probe, p.expected, p.got, p.ok FROM unnest(proven) p;
END $$;

CREATE FUNCTION tenancy_internal.prove(target regclass, role regrole, path text)
RETURNS TABLE (relation regclass, as_role regrole, command text, probe text, expected text, got text, ok boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    former text := CASE WHEN tenancy.has_tenant() THEN tenancy.current_tenant_id()::text END;
    s record;
BEGIN
    IF current_setting('transaction_read_only')::boolean THEN
        RAISE EXCEPTION 'a proof writes rows, and this transaction is read-only'
            USING ERRCODE = 'read_only_sql_transaction', HINT = 'Call it on the primary, in a transaction that may write.';
    ELSIF target IS NOT NULL AND NOT EXISTS (SELECT FROM tenancy.protected_tables p WHERE p.relation = target) THEN
        RAISE EXCEPTION 'table % is not protected', target
            USING ERRCODE = 'undefined_object', HINT = 'Call tenancy.protect_table(...) first.';
    ELSIF role IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role) THEN
        RAISE EXCEPTION 'role % does not exist', role::oid
            USING ERRCODE = 'undefined_object', HINT = 'Leave it out to try all roles of applications.';
    END IF;
    PERFORM tenancy_internal.refuse_strangers(true);
    FOR s IN
        SELECT p.relation::oid AS target, b.tenant_id AS bound, array_agg(r.oid) AS roles
          FROM tenancy.protected_tables p
         CROSS JOIN pg_roles r
          -- SET SESSION AUTHORIZATION is a superuser's; without it such a role is tried as one that is not bound.
          LEFT JOIN tenancy.role_bindings b ON b.role = r.oid AND current_setting('role') = 'none'
                AND (SELECT u.rolsuper FROM pg_roles u WHERE u.rolname = session_user)
         WHERE (target IS NULL OR p.relation IN (SELECT f FROM tenancy_internal.table_family(target) f))
           AND CASE WHEN prove.role IS NULL THEN r.oid IN (SELECT a FROM tenancy_internal.application_roles() a) ELSE r.oid = prove.role END
         GROUP BY p.relation, b.tenant_id ORDER BY p.relation::text, b.tenant_id NULLS FIRST
    LOOP
        RETURN QUERY SELECT * FROM tenancy_internal.prove_table(s.target, s.roles, s.bound, path);
    END LOOP;
    PERFORM tenancy_internal.refuse_strangers(false);
    -- Another tenant's context was the last one.
    IF former IS NULL THEN
        PERFORM tenancy_internal.leave_tenant_step();
    ELSE
        PERFORM tenancy_internal.switch_tenant_step(former);
    END IF;
END $$;

-- Without a search_path of its own: probes meet triggers and defaults with that of the role or of the caller.
CREATE FUNCTION tenancy.prove_isolation(target regclass DEFAULT NULL, role regrole DEFAULT NULL)
RETURNS TABLE (relation regclass, as_role regrole, command text, probe text, expected text, got text, ok boolean)
LANGUAGE sql AS $$
    SELECT * FROM tenancy_internal.prove(target, role, pg_catalog.current_setting('search_path'))
$$;

CREATE FUNCTION tenancy.assert_isolation(target regclass DEFAULT NULL, role regrole DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    failed pg_catalog.text;
    silent pg_catalog.text;
    tables bigint;
BEGIN
    SELECT pg_catalog.string_agg(f.failed, E'\n' ORDER BY f.relation::pg_catalog.text),
           pg_catalog.string_agg(f.silent, E'\n' ORDER BY f.relation::pg_catalog.text), pg_catalog.count(*)
      INTO failed, silent, tables
      FROM (SELECT p.relation,
                   pg_catalog.string_agg(pg_catalog.format('%s as %s: %s %s gives %s, not %s', p.relation, p.as_role, p.command,
                       p.probe, p.got, p.expected), E'\n') FILTER (WHERE NOT p.ok) AS failed,
                   CASE WHEN pg_catalog.bool_or(p.ok IS NULL) AND NOT pg_catalog.bool_or(COALESCE(p.ok AND p.expected OPERATOR(pg_catalog.<>) 'no privilege', false))
                        THEN pg_catalog.format('%s: %s', p.relation, pg_catalog.min(p.got) FILTER (WHERE p.ok IS NULL)) END AS silent
              FROM tenancy.prove_isolation(assert_isolation.target, assert_isolation.role) p GROUP BY p.relation) AS f;
    IF failed IS NOT NULL THEN
        RAISE EXCEPTION 'tenants are not isolated'
            USING ERRCODE = 'check_violation', DETAIL = failed,
                  HINT = 'tenancy.check_integrity() says what is open and what closes it.';
    ELSIF tables OPERATOR(pg_catalog.=) 0 THEN
        RAISE EXCEPTION 'nothing was proven: there is no protected table, or no role of an application'
            USING ERRCODE = 'check_violation', HINT = 'Call tenancy.protect_table(...) and tenancy.grant_usage(...) first.';
    ELSIF silent IS NOT NULL THEN
        RAISE EXCEPTION 'isolation was not proven for every table'
            USING ERRCODE = 'check_violation', DETAIL = silent,
                  HINT = 'Look at tenancy.prove_isolation(): it says what was in the way.';
    END IF;
END $$;

-- What a proof calls with its caller's rights.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.prove_isolation, tenancy.assert_isolation, tenancy_internal.prove,
        tenancy_internal.prove_table, tenancy_internal.isolation_probes, tenancy_internal.expected_of,
        tenancy_internal.verdict_of, tenancy_internal.literals_of, tenancy_internal.proof_values, tenancy_internal.run_as_owner,
        tenancy_internal.path_of, tenancy_internal.tenant_key, tenancy_internal.make_row, tenancy_internal.values_clause,
        tenancy_internal.existing_row, tenancy_internal.set_stage, tenancy_internal.probe_statement, tenancy_internal.may_try,
        tenancy_internal.switch_tenant_step,
        tenancy_internal.stale_tenant_step, tenancy_internal.leave_tenant_step, tenancy_internal.confined_step}');

COMMENT ON FUNCTION tenancy_internal.switch_tenant_step(text) IS 'a step of a proof: the tenant, for work that is rolled back';
COMMENT ON FUNCTION tenancy_internal.stale_tenant_step(text) IS 'a step of a proof: the tenant as an earlier transaction may have left it';
COMMENT ON FUNCTION tenancy_internal.leave_tenant_step() IS 'a step of a proof: the transaction as one that never had a tenant';
COMMENT ON TYPE tenancy_internal.proof IS 'what came of a probe';
COMMENT ON FUNCTION tenancy_internal.isolation_probes() IS 'the probes of a proof, and what must come of them';
COMMENT ON FUNCTION tenancy_internal.expected_of(text, text, text, text, text, text, boolean) IS 'what must come of a probe under these settings';
COMMENT ON FUNCTION tenancy_internal.verdict_of(boolean, text, text, boolean) IS 'whether a probe says that isolation holds; NULL where it says nothing';
COMMENT ON FUNCTION tenancy_internal.literals_of(text) IS 'the literals in an expression';
COMMENT ON FUNCTION tenancy_internal.proof_values(oid, bigint) IS 'the columns of a table, with values to try';
COMMENT ON FUNCTION tenancy_internal.confined_step(oid, boolean, text, text, boolean) IS
    'a step of a proof: runs a statement with the rights of a role that the caller could become, and no way back';
COMMENT ON FUNCTION tenancy_internal.run_text(text, text, boolean) IS 'runs a statement and says what came of it';
COMMENT ON FUNCTION tenancy_internal.run_as_owner(oid, text, text) IS 'runs a statement as the owner of a table';
COMMENT ON FUNCTION tenancy_internal.existing_row(oid, text, text) IS 'a row that is there already, for a proof';
COMMENT ON FUNCTION tenancy_internal.path_of(oid, text) IS 'the search_path that sessions of a role begin with';
COMMENT ON FUNCTION tenancy_internal.tenant_key(uuid, text) IS 'a key of a tenant as text';
COMMENT ON FUNCTION tenancy_internal.make_row(oid, uuid, jsonb, bigint, integer, text) IS 'makes a row of a tenant, and those that it refers to';
COMMENT ON FUNCTION tenancy_internal.values_clause(jsonb, text) IS 'columns and VALUES of an INSERT';
COMMENT ON FUNCTION tenancy_internal.set_stage(oid, uuid, text) IS 'two tenants with rows to prove isolation with';
COMMENT ON FUNCTION tenancy_internal.probe_statement(oid, oid, text, text, jsonb) IS 'the statement of a probe; NULL where there is nothing to try';
COMMENT ON FUNCTION tenancy_internal.may_try(oid, oid, text) IS 'whether a role has any privilege for a command';
COMMENT ON FUNCTION tenancy_internal.probe_actions(oid, oid, uuid, text, jsonb) IS
    'what the actions of foreign keys make of a tenant''s row';
COMMENT ON FUNCTION tenancy_internal.prove_table(oid, oid[], uuid, text) IS 'probes one table as some roles, and undoes it';
COMMENT ON FUNCTION tenancy_internal.prove(regclass, regrole, text) IS 'what tenancy.prove_isolation does';
COMMENT ON FUNCTION tenancy.prove_isolation(regclass, regrole) IS
    'tries as an application''s role to get at another tenant''s rows, with rows made for it, and undoes all; NULL is not proven';
COMMENT ON FUNCTION tenancy.assert_isolation(regclass, regrole) IS
    'raises 23514 where tenancy.prove_isolation finds that tenants are not isolated, or proves nothing of a table';
