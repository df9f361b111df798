-- room integrity, rows: checks of data, in one pass over each table

INSERT INTO tenancy_internal.integrity_checks (check_id, scope, severity, source, title) VALUES
    ('null_tenant', 'data', 'error', 'find_row_defects', 'rows without a tenant'),
    ('unknown_tenant', 'data', 'error', 'find_row_defects', 'rows of a tenant that does not exist'),
    ('deleted_tenant_rows', 'data', 'warning', 'find_row_defects', 'rows of a tenant that was deleted longer ago than its grace'),
    ('foreign_parent', 'data', 'error', 'find_row_defects', 'rows that refer to a row of another tenant'),
    ('orphan_rows', 'data', 'error', 'find_row_defects', 'rows that refer to a row that is not there'),
    ('wrong_partition', 'data', 'error', 'find_row_defects', 'rows in a partition or child table that is not for them'),
    ('user_table_rule', 'data', 'error', 'find_row_defects', 'platform users with a tenant, or tenant users without one'),
    ('duplicate_number', 'data', 'error', 'find_row_defects', 'numbers that a tenant has twice'),
    ('number_gap', 'data', 'info', 'find_row_defects', 'numbers that a tenant has not used'),
    ('duplicate_key', 'data', 'error', 'find_row_defects', 'keys that a tenant has twice'),
    ('audit_without_tenant', 'data', 'warning', 'find_row_defects', 'entries of the audit log that belong to no tenant');

-- What no constraint says of a table and yet holds, for the checks to look after. Columns by name.
CREATE TABLE tenancy_internal.integrity_hints (
    kind           text        NOT NULL CHECK (kind IN ('reference', 'number', 'unique', 'user_table')),
    relation       regclass    NOT NULL,
    columns        name[]      NOT NULL,       -- for 'user_table' that of the platform users and that of the tenant
    parent         regclass,
    parent_columns name[],
    registered_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    registered_by  name        NOT NULL DEFAULT session_user,
    PRIMARY KEY (kind, relation, columns),
    CHECK ((kind = 'reference') = (parent IS NOT NULL AND parent_columns IS NOT NULL))
);
-- A hint about a table that is gone would be about another one in the database that the dump goes to.
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.integrity_hints',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)
       AND (parent IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = parent))');

CREATE VIEW tenancy.integrity_hints AS
SELECT h.kind, h.relation, h.columns, h.parent, h.parent_columns, h.registered_at, h.registered_by
  FROM tenancy_internal.integrity_hints h
  JOIN pg_catalog.pg_class c ON c.oid = h.relation;

-- Refuses what a hint cannot be about; gives the numbers of the columns.
CREATE FUNCTION tenancy_internal.checked_columns(target regclass, columns name[], argument text) RETURNS int2[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing name;
BEGIN
    IF target IS NULL OR columns IS NULL OR cardinality(columns) = 0 OR array_position(columns, NULL) IS NOT NULL THEN
        RAISE EXCEPTION '% must not be null or empty', argument
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name a table, and its columns.';
    ELSIF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = target AND c.relkind IN ('r', 'p')) THEN
        RAISE EXCEPTION '% is not a table', target
            USING ERRCODE = 'wrong_object_type', HINT = 'Name a table; its partitions are checked with it.';
    ELSIF cardinality(columns) <> (SELECT count(DISTINCT n) FROM unnest(columns) n) THEN
        RAISE EXCEPTION '% names a column twice', argument
            USING ERRCODE = 'duplicate_column', HINT = 'Name each column once.';
    END IF;
    SELECT n INTO missing FROM unnest(columns) n
     WHERE NOT EXISTS (SELECT FROM pg_attribute a
                        WHERE a.attrelid = target AND a.attname = n AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'column "%" of % does not exist', missing, target
            USING ERRCODE = 'undefined_column', HINT = 'Name columns as pg_attribute has them, without quotes.';
    END IF;
    RETURN ARRAY(SELECT a.attnum FROM unnest(columns) WITH ORDINALITY AS n(name, place)
                   JOIN pg_attribute a ON a.attrelid = target AND a.attname = n.name ORDER BY n.place);
END $$;

CREATE FUNCTION tenancy_internal.keep_hint(kind text, target regclass, columns name[], parent regclass, parent_columns name[])
RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO tenancy_internal.integrity_hints AS h (kind, relation, columns, parent, parent_columns)
    VALUES (kind, target, columns, parent, parent_columns)
    ON CONFLICT ON CONSTRAINT integrity_hints_pkey
    DO UPDATE SET parent = excluded.parent, parent_columns = excluded.parent_columns, registered_at = now(), registered_by = session_user
     WHERE (h.parent, h.parent_columns) IS DISTINCT FROM (excluded.parent, excluded.parent_columns)
$$;

CREATE FUNCTION tenancy_internal.forget_hint(kind text, target regclass, columns name[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tenancy_internal.integrity_hints h
     WHERE h.kind = forget_hint.kind AND h.relation = target AND (h.columns = forget_hint.columns OR forget_hint.columns IS NULL);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such hint is registered for %', COALESCE(target::text, 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'SELECT * FROM tenancy.integrity_hints shows what is registered.';
    END IF;
END $$;

-- The tenant column of a table of tenants' rows, for a hint that is about each tenant.
CREATE FUNCTION tenancy_internal.checked_tenant_column(target regclass) RETURNS name
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_column name := (SELECT tenancy_internal.tenant_column(p.relation, p.tenant_column)
                            FROM tenancy_internal.protected_tables p WHERE p.relation = target);
BEGIN
    IF found_column IS NULL THEN
        RAISE EXCEPTION '% is not protected by tenant', target
            USING ERRCODE = 'undefined_object', HINT = 'Call tenancy.protect_table(...) first: the hint is about the rows of each tenant.';
    END IF;
    RETURN found_column;
END $$;

CREATE FUNCTION tenancy.register_reference(target regclass, columns name[], parent regclass, parent_columns name[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    numbers int2[] := tenancy_internal.checked_columns(target, columns, 'columns');
    parent_numbers int2[] := tenancy_internal.checked_columns(parent, parent_columns, 'parent_columns');
    differing text;
BEGIN
    IF cardinality(columns) <> cardinality(parent_columns) THEN
        RAISE EXCEPTION 'columns and parent_columns differ in number'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name for each column the one of the parent that it refers to.';
    END IF;
    SELECT format('column "%s" is %s, column "%s" of the parent is %s', a.attname, format_type(a.atttypid, a.atttypmod),
                  b.attname, format_type(b.atttypid, b.atttypmod))
      INTO differing
      FROM unnest(numbers, parent_numbers) AS n(child, parent)
      JOIN pg_attribute a ON a.attrelid = target AND a.attnum = n.child
      JOIN pg_attribute b ON b.attrelid = register_reference.parent AND b.attnum = n.parent
     WHERE NOT tenancy_internal.is_comparable(tenancy_internal.compared_type(a.atttypid), tenancy_internal.compared_type(b.atttypid))
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the columns cannot be compared: %', differing
            USING ERRCODE = 'datatype_mismatch', HINT = 'Name columns of the same type.';
    END IF;
    PERFORM tenancy_internal.keep_hint('reference', target, columns, parent, parent_columns);
END $$;

CREATE FUNCTION tenancy.register_number(target regclass, number_column name) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    numbers int2[] := tenancy_internal.checked_columns(target, ARRAY[number_column], 'number_column');
    declared oid := (SELECT tenancy_internal.compared_type(a.atttypid) FROM pg_attribute a
                      WHERE a.attrelid = target AND a.attnum = numbers[1]);
BEGIN
    PERFORM tenancy_internal.checked_tenant_column(target);
    IF declared NOT IN ('smallint'::regtype, 'integer'::regtype, 'bigint'::regtype) THEN
        RAISE EXCEPTION 'column "%" is %, not an integer', number_column, format_type(declared, NULL)
            USING ERRCODE = 'datatype_mismatch', HINT = 'Name the column that counts each tenant''s rows.';
    END IF;
    PERFORM tenancy_internal.keep_hint('number', target, ARRAY[number_column], NULL, NULL);
END $$;

CREATE FUNCTION tenancy.register_unique(target regclass, columns name[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tenancy_internal.checked_columns(target, columns, 'columns');
    PERFORM tenancy_internal.checked_tenant_column(target);
    PERFORM tenancy_internal.keep_hint('unique', target, columns, NULL, NULL);
END $$;

CREATE FUNCTION tenancy.register_user_table(target regclass, superuser_column name, tenant_column name DEFAULT 'tenant_id') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    numbers int2[] := tenancy_internal.checked_columns(target, ARRAY[superuser_column, tenant_column], 'superuser_column');
    declared oid := (SELECT tenancy_internal.compared_type(a.atttypid) FROM pg_attribute a
                      WHERE a.attrelid = target AND a.attnum = numbers[1]);
BEGIN
    IF declared <> 'boolean'::regtype THEN
        RAISE EXCEPTION 'column "%" is %, not boolean', superuser_column, format_type(declared, NULL)
            USING ERRCODE = 'datatype_mismatch', HINT = 'Name the column that says who is a user of the platform.';
    END IF;
    -- A table of users has one rule.
    DELETE FROM tenancy_internal.integrity_hints h
     WHERE h.kind = 'user_table' AND h.relation = target AND h.columns <> ARRAY[superuser_column, tenant_column];
    PERFORM tenancy_internal.keep_hint('user_table', target, ARRAY[superuser_column, tenant_column], NULL, NULL);
END $$;

CREATE FUNCTION tenancy.unregister_reference(target regclass, columns name[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenancy_internal.forget_hint('reference', target, COALESCE(columns, '{}'))
$$;

CREATE FUNCTION tenancy.unregister_number(target regclass, number_column name) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenancy_internal.forget_hint('number', target, ARRAY[number_column])
$$;

CREATE FUNCTION tenancy.unregister_unique(target regclass, columns name[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenancy_internal.forget_hint('unique', target, COALESCE(columns, '{}'))
$$;

CREATE FUNCTION tenancy.unregister_user_table(target regclass) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenancy_internal.forget_hint('user_table', target, NULL)
$$;

-- Values of these types are compared by functions of PostgreSQL itself, whatever casts and operators users made: reading as a
-- superuser must not run what the owner of a table wrote.
CREATE FUNCTION tenancy_internal.is_comparable(one oid, other oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_operator o
                    WHERE o.oprname = '=' AND o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft = one AND o.oprright = other)
        OR one = other AND EXISTS (SELECT FROM pg_type t WHERE t.oid = one AND (t.typtype <> 'b' OR t.typcategory = 'A'))
$$;

-- The columns of a relation as `c` has them, for to_jsonb: that would call a cast to json which the owner of a type made.
CREATE FUNCTION tenancy_internal.shown_columns(target oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(CASE WHEN tenancy_internal.compared_type(a.atttypid) < 16384 THEN format('c.%I', a.attname)
                           ELSE format('CASE WHEN num_nulls(c.%1$I) = 0 THEN concat(c.%1$I) END AS %1$I', a.attname) END, ', '
                      ORDER BY a.attnum)
      FROM pg_attribute a WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
$$;

-- Foreign keys of protected tables or to them, and hints of references, as texts about the rows `c` of the child and those of
-- the parent under an alias. A partition has its parent's foreign keys as its own.
CREATE FUNCTION tenancy_internal.describe_references(wanted oid[], done oid[]) RETURNS TABLE (
    child oid, parent oid, constraint_id oid, constraint_name name, is_inherited boolean, is_validated boolean, is_full boolean,
    columns name[], parent_columns name[], alias text, parent_from text, equal text, given text, broken text, is_unique boolean,
    is_scoped boolean, same_tenant text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH refs AS (
    SELECT k.conrelid AS child, k.confrelid AS parent, k.oid AS constraint_id, k.conname, k.conparentid <> 0 AS is_inherited,
           k.convalidated, k.confmatchtype = 'f' AS is_full, k.conkey, k.confkey, k.conpfeqop, true AS is_unique, 0::bigint AS place
      FROM pg_constraint k
     WHERE k.contype = 'f' AND (wanted IS NULL OR k.conrelid = ANY (wanted)) AND k.conrelid NOT IN (SELECT d FROM unnest(done) d)
       AND NOT COALESCE((to_jsonb(k) ->> 'conperiod')::boolean, false)    -- new in 18
       AND NOT EXISTS (SELECT FROM pg_constraint u WHERE u.oid = k.conparentid AND u.conrelid = k.conrelid)
       AND k.confrelid <> 'tenancy.tenants'::regclass
       AND EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation IN (k.conrelid, k.confrelid))
     UNION ALL
    SELECT f.relation, h.parent, NULL, NULL, f.relation <> h.relation, false, false,
           ARRAY(SELECT a.attnum FROM unnest(h.columns) WITH ORDINALITY AS n(name, place)
                   LEFT JOIN pg_attribute a ON a.attrelid = f.relation AND a.attname = n.name AND NOT a.attisdropped ORDER BY n.place),
           ARRAY(SELECT a.attnum FROM unnest(h.parent_columns) WITH ORDINALITY AS n(name, place)
                   LEFT JOIN pg_attribute a ON a.attrelid = h.parent AND a.attname = n.name AND NOT a.attisdropped ORDER BY n.place),
           NULL,
           EXISTS (SELECT FROM pg_index x
                    WHERE x.indrelid = h.parent AND x.indisunique AND x.indimmediate AND x.indisvalid AND x.indpred IS NULL
                      AND x.indexprs IS NULL
                      AND NOT EXISTS (SELECT FROM pg_class i WHERE i.oid = h.parent AND i.relkind = 'r' AND i.relhassubclass)
                      AND NOT EXISTS (SELECT FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS n(attnum, place)
                                        LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = n.attnum
                                       WHERE n.place <= x.indnkeyatts AND (a.attname = ANY (h.parent_columns)) IS NOT TRUE)),
           row_number() OVER (ORDER BY h.relation, h.columns)
      FROM tenancy_internal.integrity_hints h
     CROSS JOIN LATERAL tenancy_internal.table_family(h.relation) AS f(relation)
     WHERE h.kind = 'reference' AND (wanted IS NULL OR f.relation = ANY (wanted))
), named AS (
    SELECT r.*, format('p%s', row_number() OVER (PARTITION BY r.child ORDER BY r.constraint_id, r.place)) AS alias FROM refs r
), compared AS (
    SELECT r.*, e.columns, e.parent_columns, e.equal, e.given,
           -- The FK's own operator is that of an operator class; a hint has PostgreSQL's.
           format(CASE WHEN pc.relkind = 'p' OR r.constraint_id IS NULL THEN '%I.%I' ELSE 'ONLY %I.%I' END,
                  pn.nspname, pc.relname) AS parent_from,
           tenancy_internal.tenant_column(cp.relation, cp.tenant_column) AS child_tenant,
           tenancy_internal.tenant_column(pp.relation, pp.tenant_column) AS parent_tenant,
           cp.tenant_key AS child_key, pp.tenant_key AS parent_key, cp.access AS child_access
      FROM named r
      JOIN pg_class pc ON pc.oid = r.parent JOIN pg_namespace pn ON pn.oid = pc.relnamespace
      LEFT JOIN tenancy_internal.protected_tables cp ON cp.relation = r.child AND cp.access <> 'reference'
      LEFT JOIN tenancy_internal.protected_tables pp ON pp.relation = r.parent AND pp.access <> 'reference'
     CROSS JOIN LATERAL (
        SELECT array_agg(a.attname ORDER BY n.place), array_agg(b.attname ORDER BY n.place),
               CASE WHEN bool_and(COALESCE(t.child < 16384 AND t.parent < 16384 OR t.child = t.parent, false))
                    THEN string_agg(format('%s.%s::%s OPERATOR(%s) c.%s::%s%s', r.alias, quote_ident(b.attname), format_type(t.parent, -1),
                                           COALESCE(quote_ident(ops.nspname) || '.' || o.oprname, 'pg_catalog.='), quote_ident(a.attname),
                                           format_type(t.child, -1),
                                           CASE WHEN b.attcollation <> 0 AND a.attcollation <> 0
                                                THEN ' COLLATE ' || quote_ident(lns.nspname) || '.' || quote_ident(l.collname) END),
                                    ' AND ' ORDER BY n.place) END,
               format('num_nulls(%s) = 0', string_agg('c.' || quote_ident(a.attname), ', '))
          FROM unnest(r.conkey, r.confkey, r.conpfeqop) WITH ORDINALITY AS n(child, parent, operator, place)
          LEFT JOIN pg_attribute a ON a.attrelid = r.child AND a.attnum = n.child
          LEFT JOIN pg_attribute b ON b.attrelid = r.parent AND b.attnum = n.parent
         CROSS JOIN LATERAL (SELECT tenancy_internal.compared_type(a.atttypid), tenancy_internal.compared_type(b.atttypid)) AS t(child, parent)
          LEFT JOIN pg_operator o ON o.oid = n.operator LEFT JOIN pg_namespace ops ON ops.oid = o.oprnamespace
          LEFT JOIN pg_collation l ON l.oid = b.attcollation LEFT JOIN pg_namespace lns ON lns.oid = l.collnamespace
     ) AS e(columns, parent_columns, equal, given)
)
SELECT r.child, r.parent, r.constraint_id, r.conname, r.is_inherited, r.convalidated, r.is_full, r.columns, r.parent_columns,
       r.alias, r.parent_from, r.equal, r.given,
       CASE WHEN r.is_full AND cardinality(r.columns) > 1
            THEN format(' OR num_nulls(%s) BETWEEN 1 AND %s', (SELECT string_agg('c.' || quote_ident(n), ', ') FROM unnest(r.columns) n),
                        cardinality(r.columns) - 1)
            ELSE '' END,
       r.is_unique,
       r.child_tenant IS NULL OR r.parent_tenant IS NULL
           OR EXISTS (SELECT FROM unnest(r.columns, r.parent_columns) AS n(child, parent)
                       WHERE n.child = r.child_tenant AND n.parent = r.parent_tenant),
       -- Whether the parent is of the child's tenant, or everybody's.
       CASE WHEN r.child_tenant IS NOT NULL AND r.parent_tenant IS NOT NULL THEN
           format('(%1$s.%2$I IS NULL OR %5$s%1$s.%2$I%3$s OPERATOR(pg_catalog.=) %4$s)', r.alias, r.parent_tenant,
                  CASE r.parent_key WHEN 'id' THEN '::uuid' WHEN 'number' THEN '::bigint' ELSE '::text COLLATE pg_catalog."C"' END,
                  CASE WHEN r.child_key = r.parent_key
                       THEN format('c.%I%s', r.child_tenant, CASE r.child_key WHEN 'id' THEN '::uuid' WHEN 'number' THEN '::bigint' ELSE '::text' END)
                       ELSE format('(SELECT t.%I FROM tenancy.tenants t WHERE t.%I OPERATOR(pg_catalog.=) c.%I%s)', r.parent_key, r.child_key, r.child_tenant,
                                   CASE r.child_key WHEN 'id' THEN '::uuid' WHEN 'number' THEN '::bigint' ELSE '::text' END) END,
                  CASE WHEN r.child_access = 'tenant' THEN format('c.%I IS NULL OR ', r.child_tenant) END)
       END
  FROM compared r
$$;

-- What is to be examined of the rows of each table: of protected ones, and of those that refer to them or have a hint.
CREATE FUNCTION tenancy_internal.describe_rows(wanted oid[], done oid[]) RETURNS TABLE (
    relation oid, kind "char", name text, access text, tenant_key text, tenant_column name, tenant_value text,
    refers_to_tenants boolean,
    tests jsonb
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH users AS (
    SELECT f.relation, h.columns
      FROM tenancy_internal.integrity_hints h CROSS JOIN LATERAL tenancy_internal.table_family(h.relation) AS f(relation)
     WHERE h.kind = 'user_table'
), references_found AS (
    SELECT * FROM tenancy_internal.describe_references(wanted, done)
), constraints AS (
    -- What may bind a table's rows to tenants. Code that is no part of PostgreSQL is not run: it has a dependency.
    SELECT k.conrelid AS relation, k.oid, k.convalidated, pg_get_expr(k.conbin, k.conrelid) AS condition
      FROM pg_constraint k
     WHERE k.contype = 'c' AND cardinality(k.conkey) = 1
       AND EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                    WHERE i.inhrelid = k.conrelid AND NOT c.relispartition)
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
                                                 AND d.refclassid <> 'pg_class'::regclass)
), known AS (
    SELECT c.oid, c.relkind, format('%I.%I', n.nspname, c.relname) AS name, p.access, p.tenant_key, c.relispartition,
           tenancy_internal.tenant_column(p.relation, p.tenant_column) AS tenant_column
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN tenancy_internal.protected_tables p ON p.relation = c.oid
     WHERE c.relkind IN ('r', 'f') AND (wanted IS NULL OR c.oid = ANY (wanted)) AND c.oid NOT IN (SELECT d FROM unnest(done) d)
       AND (p.relation IS NOT NULL OR c.oid IN (SELECT u.relation FROM users u) OR c.oid IN (SELECT r.child FROM references_found r))
)
SELECT k.oid, k.relkind, k.name, k.access, k.tenant_key, a.attname,
       CASE WHEN a.attname IS NOT NULL THEN format('c.%I%s', a.attname, CASE k.tenant_key WHEN 'id' THEN '::uuid' WHEN 'number' THEN '::bigint' ELSE '::text' END) END,
       EXISTS (SELECT FROM pg_constraint o
                WHERE o.conrelid = k.oid AND o.contype = 'f' AND o.confrelid = 'tenancy.tenants'::regclass AND o.convalidated
                  AND o.conkey = ARRAY[a.attnum]),
       (SELECT jsonb_agg(t.test) FROM (
            SELECT jsonb_build_object('check', 'foreign_parent', 'constraint', r.constraint_id::bigint, 'parent', r.parent::bigint,
                       'is_trusted', false, 'is_moot', r.is_scoped,
                       'join', CASE WHEN r.is_unique THEN format('LEFT JOIN %s AS %s ON %s', r.parent_from, r.alias, r.equal) END,
                       'condition', CASE WHEN r.is_unique THEN format('%s.tableoid IS NOT NULL AND NOT COALESCE(%s, false)', r.alias, r.same_tenant)
                           ELSE format('%1$s AND EXISTS (SELECT FROM %2$s AS %3$s WHERE %4$s)
                                        AND NOT EXISTS (SELECT FROM %2$s AS %3$s WHERE %4$s AND %5$s)',
                                       r.given, r.parent_from, r.alias, r.equal, r.same_tenant) END,
                       'subject', s.subject, 'detail', format('%s refers to rows of another tenant in %s.', s.subject, r.parent::regclass),
                       'equal', r.equal IS NOT NULL) AS test
              FROM references_found r
             CROSS JOIN LATERAL (SELECT format('%s of %s', COALESCE('Foreign key ' || quote_ident(r.constraint_name),
                                                                    format('Reference (%s)', array_to_string(r.columns, ', '))), k.name)) AS s(subject)
             WHERE r.child = k.oid
             UNION ALL
            SELECT jsonb_build_object('check', 'orphan_rows', 'constraint', r.constraint_id::bigint, 'parent', r.parent::bigint,
                       'is_trusted', r.is_validated, 'is_moot', false,
                       'join', CASE WHEN r.is_unique THEN format('LEFT JOIN %s AS %s ON %s', r.parent_from, r.alias, r.equal) END,
                       'condition', CASE WHEN r.is_unique THEN format('(%s AND %s.tableoid IS NULL%s)', r.given, r.alias, r.broken)
                           ELSE format('(%s AND NOT EXISTS (SELECT FROM %s AS %s WHERE %s)%s)', r.given, r.parent_from, r.alias, r.equal, r.broken) END,
                       'subject', s.subject, 'detail', format('%s refers to rows of %s that are not there.', s.subject, r.parent::regclass),
                       'remedy', CASE WHEN r.constraint_id IS NOT NULL THEN format('CALL tenancy.repair_orphans(%L, %L, ''quarantine'', dry_run => false)', k.name, r.constraint_name) END,
                       'equal', r.equal IS NOT NULL)
              FROM references_found r
             CROSS JOIN LATERAL (SELECT format('%s of %s', COALESCE('Foreign key ' || quote_ident(r.constraint_name),
                                                                    format('Reference (%s)', array_to_string(r.columns, ', '))), k.name)) AS s(subject)
             WHERE r.child = k.oid
             UNION ALL
            SELECT jsonb_build_object('check', 'user_table_rule', 'is_trusted', false, 'is_moot', false, 'equal', true,
                       'condition', format('(c.%I IS TRUE) = (num_nulls(c.%I) = 0)', u.columns[1], u.columns[2]),
                       'detail', format('Column %1$I of %2$s says who is a user of the platform: such a user has no %3$I, and every other one has.',
                                        u.columns[1], k.name, u.columns[2]))
              FROM users u WHERE u.relation = k.oid
             UNION ALL
            SELECT jsonb_build_object('check', 'wrong_partition', 'is_trusted', true, 'is_moot', false,
                       'condition', format('EXISTS (SELECT FROM (SELECT c.*) AS own WHERE (%s) IS NOT TRUE)', b.condition), 'equal', true,
                       'detail', format('Rows of %s are not for it: it is a partition %s.', k.name, b.bound))
              FROM (SELECT pg_get_expr(c.relpartbound, c.oid), pg_get_partition_constraintdef(c.oid) FROM pg_class c WHERE c.oid = k.oid)
                   AS b(bound, condition)
             WHERE k.relispartition AND b.condition IS NOT NULL AND NOT EXISTS (
                SELECT FROM pg_partition_ancestors(k.oid) AS o(relation)
                  JOIN pg_partitioned_table q ON q.partrelid = o.relation AND q.partexprs IS NOT NULL)
             UNION ALL
            SELECT jsonb_build_object('check', 'wrong_partition', 'constraint', o.oid::bigint, 'is_trusted', o.convalidated,
                       'is_moot', false, 'condition', format('EXISTS (SELECT FROM (SELECT c.*) AS own WHERE (%s) IS FALSE)', o.condition), 'equal', true,
                       'detail', format('they do not meet %s', o.condition))
              FROM constraints o WHERE o.relation = k.oid
       ) AS t)
  FROM known k
  LEFT JOIN pg_attribute a ON a.attrelid = k.oid AND a.attname = k.tenant_column AND NOT a.attisdropped
 ORDER BY k.name
$$;

-- Keys of all tenants, of those whose rows may be there, and of those deleted longer ago than their grace.
CREATE FUNCTION tenancy_internal.tenant_keys(
    OUT ids uuid[], OUT numbers bigint[], OUT codes text[], OUT good_ids uuid[], OUT good_numbers bigint[], OUT good_codes text[],
    OUT gone_ids uuid[], OUT gone_numbers bigint[], OUT gone_codes text[]
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(array_agg(t.id), '{}'), COALESCE(array_agg(t.number), '{}'), COALESCE(array_agg(t.code), '{}'),
           COALESCE(array_agg(t.id) FILTER (WHERE NOT d.gone), '{}'), COALESCE(array_agg(t.number) FILTER (WHERE NOT d.gone), '{}'),
           COALESCE(array_agg(t.code) FILTER (WHERE NOT d.gone), '{}'),
           COALESCE(array_agg(t.id) FILTER (WHERE d.gone), '{}'), COALESCE(array_agg(t.number) FILTER (WHERE d.gone), '{}'),
           COALESCE(array_agg(t.code) FILTER (WHERE d.gone), '{}')
      FROM tenancy.tenants t
     CROSS JOIN LATERAL (SELECT COALESCE(t.deleted_at < now() - tenancy_internal.deletion_grace(), false)) AS d(gone)
$$;

-- What removes the rows of a tenant, which is known by that key of it; NULL where they are of many.
CREATE FUNCTION tenancy_internal.purge_call(tenant_key text, tenant text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('CALL tenancy.purge_tenant(%1$L, confirm => %1$L, dry_run => false)', t.code)
      FROM tenancy.tenants t
     WHERE tenant = CASE tenant_key WHEN 'id' THEN t.id::text WHEN 'number' THEN t.number::text ELSE t.code END
$$;

-- Tables of tenants' rows where constraints promise everything else: no reference by which tenants could meet, no hint, nothing
-- that is not validated.
CREATE FUNCTION tenancy_internal.plain_tables(wanted oid[], OUT relations oid[], OUT attributes smallint[], OUT are_shared boolean[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    WITH tenants_tables AS MATERIALIZED (
        SELECT p.relation::oid AS relation, p.access = 'shared' AS is_shared,
               COALESCE((SELECT d.refobjsubid::int2 FROM pg_policy y
                           JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = y.oid
                                           AND d.refclassid = 'pg_class'::regclass AND d.refobjid = y.polrelid AND d.refobjsubid > 0
                          WHERE y.polrelid = p.relation AND y.polname = 'tenancy_isolation' LIMIT 1),
                        (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = p.relation AND a.attname = p.tenant_column)) AS attribute
          FROM tenancy_internal.protected_tables p
         WHERE p.access <> 'reference'
    ), open_references AS (
        SELECT k.conrelid AS relation
          FROM pg_constraint k
          LEFT JOIN tenants_tables c ON c.relation = k.conrelid
          LEFT JOIN tenants_tables p ON p.relation = k.confrelid
         WHERE k.contype = 'f'
           AND NOT (k.convalidated AND (c.relation IS NULL OR p.relation IS NULL
                                        OR EXISTS (SELECT FROM unnest(k.conkey, k.confkey) AS n(child, parent)
                                                    WHERE n.child = c.attribute AND n.parent = p.attribute)))
         UNION ALL
        SELECT f FROM tenancy_internal.integrity_hints h CROSS JOIN LATERAL tenancy_internal.table_family(h.relation) f
         WHERE h.kind IN ('reference', 'user_table')
         UNION ALL
        SELECT k.conrelid FROM pg_constraint k WHERE k.contype = 'c' AND NOT k.convalidated
    )
    SELECT array_agg(t.relation ORDER BY t.relation), array_agg(t.attribute ORDER BY t.relation), array_agg(t.is_shared ORDER BY t.relation)
      INTO relations, attributes, are_shared
      FROM tenants_tables t JOIN pg_class c ON c.oid = t.relation
     WHERE c.relkind = 'r' AND t.attribute IS NOT NULL AND (wanted IS NULL OR t.relation = ANY (wanted))
       AND t.relation NOT IN (SELECT o.relation FROM open_references o);
END $$;

-- Why the caller cannot examine all rows of a relation; NULL where he can. The fence speaks when they are read.
CREATE FUNCTION tenancy_internal.reading_obstacle(relation oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN NOT has_table_privilege(relation, 'SELECT') THEN format('%s may not read %s', quote_ident(current_user), relation::regclass)
                WHEN row_security_active(relation) THEN format('row security does not show %s all rows of %s', quote_ident(current_user), relation::regclass)
           END
$$;

-- The hints that are about all rows of a tenant together: what is repeated, and what is left out.
CREATE FUNCTION tenancy_internal.describe_counters(wanted oid[]) RETURNS TABLE (
    relation oid, kind text, name text, columns name[], tenant_value text, keys text, given text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT c.oid, h.kind, format(CASE c.relkind WHEN 'p' THEN '%I.%I' ELSE 'ONLY %I.%I' END, n.nspname, c.relname), h.columns,
       CASE WHEN p.relation IS NOT NULL THEN
           format('c.%I%s', tenancy_internal.tenant_column(p.relation, p.tenant_column),
                  CASE p.tenant_key WHEN 'id' THEN '::uuid' WHEN 'number' THEN '::bigint' ELSE '::text' END) END,
       k.keys, k.given
  FROM tenancy_internal.integrity_hints h
  JOIN pg_class c ON c.oid = h.relation JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN tenancy_internal.protected_tables p ON p.relation = c.oid AND p.access <> 'reference'
 CROSS JOIN LATERAL (
    SELECT string_agg(format('c.%I', n), ', ' ORDER BY place), format('num_nulls(%s) = 0', string_agg(format('c.%I', n), ', '))
      FROM unnest(h.columns) WITH ORDINALITY AS u(n, place)) AS k(keys, given)
 WHERE h.kind IN ('number', 'unique') AND (wanted IS NULL OR c.oid = ANY (wanted))
 ORDER BY c.oid, h.kind, h.columns
$$;

CREATE FUNCTION tenancy_internal.find_row_defects(tables oid[], sample integer, deep boolean) RETURNS SETOF tenancy_internal.finding
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    all_tenants record;
    found tenancy_internal.finding;
    problem text;
    t record;
    h record;
    test jsonb;
    tests jsonb[];
    source text;               -- what stands after FROM
    counts bigint[];
    plain record;
    done oid[] := '{}';
    shown_key text;
BEGIN
    SELECT * INTO all_tenants FROM tenancy_internal.tenant_keys();

    -- Most tables need nothing but a look at their tenants. What is not as it should be there is examined again, by a statement
    -- that counts and shows it; so is all where this fails.
    IF NOT deep THEN
        SELECT * INTO plain FROM tenancy_internal.plain_tables(tables);
        BEGIN
            IF plain.relations IS NOT NULL THEN
                -- Past row security only with the fence's consent, which it gives or denies to whoever reads by a statement.
                EXECUTE format('SELECT FROM ONLY %s LIMIT 0', plain.relations[1]::regclass);
            END IF;
            FOR t IN SELECT * FROM tenancy_internal.tally_rows(plain.relations, plain.attributes, plain.are_shared,
                                                               all_tenants.good_ids, all_tenants.good_numbers, all_tenants.good_codes) r
                      WHERE plain.relations IS NOT NULL AND r.is_clean LOOP
                RETURN NEXT (NULL, 'pg_class'::regclass, t.relation, 0, NULL, t.row_count, NULL, NULL, NULL)::tenancy_internal.finding;
                done := done || t.relation::oid;
            END LOOP;
        EXCEPTION WHEN OTHERS THEN
            done := '{}';
        END;
    END IF;

    FOR t IN SELECT * FROM tenancy_internal.describe_rows(tables, done) LOOP
        -- The columns of a finding that the table decides
        found := (NULL, 'pg_class'::regclass, t.relation, 0, NULL, NULL, NULL, NULL, NULL)::tenancy_internal.finding;
        tests := ARRAY(SELECT e FROM jsonb_array_elements(t.tests) e
                        WHERE NOT (e ->> 'is_moot')::boolean AND (deep OR NOT (e ->> 'is_trusted')::boolean));
        CONTINUE WHEN cardinality(tests) = 0 AND (t.access IS NULL OR t.access = 'reference');
        problem := CASE t.kind WHEN 'f' THEN 'its rows are on another server' ELSE tenancy_internal.reading_obstacle(t.relation) END;
        IF problem IS NOT NULL THEN
            found.check_id := 'not_examined';
            found.detail := problem;
            RETURN NEXT found;
            CONTINUE;
        END IF;
        BEGIN
            -- What refers to a table that cannot be read is left out, and said to be.
            FOREACH test IN ARRAY tests LOOP
                problem := CASE WHEN NOT (test ->> 'equal')::boolean THEN 'the columns are not of one type, or are gone'
                                WHEN test ? 'parent' THEN tenancy_internal.reading_obstacle((test ->> 'parent')::oid) END;
                IF problem IS NOT NULL THEN
                    tests := array_remove(tests, test);
                    IF test ->> 'check' = 'orphan_rows' THEN
                        found.check_id := 'not_examined';
                        found.detail := format('%s: %s', test ->> 'subject', problem);
                        RETURN NEXT found;
                    END IF;
                END IF;
            END LOOP;
            IF t.access IN ('tenant', 'shared') THEN
                IF t.access = 'tenant' THEN
                    -- Not IS NULL, which the planner does not look for where the column is NOT NULL.
                    tests := tests || jsonb_build_object('check', 'null_tenant', 'condition', format('num_nulls(c.%I) = 1', t.tenant_column),
                                                         'detail', format('Tenant column %I of %s is NULL: the rows are nobody''s, and no tenant sees them.', t.tenant_column, t.name));
                END IF;
                IF deep OR NOT t.refers_to_tenants THEN
                    tests := tests || jsonb_build_object('check', 'unknown_tenant',
                        'condition', format('NOT (%s = ANY ($%s))', t.tenant_value, array_position('{id,number,code}', t.tenant_key)),
                        'detail', format('Tenant column %I of %s names tenants that do not exist.', t.tenant_column, t.name));
                END IF;
                IF cardinality(all_tenants.gone_ids) > 0 THEN
                    tests := tests || jsonb_build_object('check', 'deleted_tenant_rows',
                        'condition', format('%s = ANY ($%s)', t.tenant_value, 3 + array_position('{id,number,code}', t.tenant_key)),
                        'detail', format('The tenants of rows of %s were deleted more than %s ago.', t.name, tenancy_internal.deletion_grace()));
                END IF;
            END IF;

            source := concat_ws(' ', 'ONLY', t.name, 'AS c',
                                (SELECT string_agg(j, ' ' ORDER BY j) FROM (SELECT DISTINCT e ->> 'join' FROM unnest(tests) e) AS d(j)));
            EXECUTE format('SELECT ARRAY[count(*)%s] FROM %s',
                           (SELECT string_agg(format(', count(*) FILTER (WHERE %s)', e ->> 'condition'), '' ORDER BY p)
                              FROM unnest(tests) WITH ORDINALITY AS u(e, p)), source)
               INTO counts
              USING all_tenants.ids, all_tenants.numbers, all_tenants.codes, all_tenants.gone_ids, all_tenants.gone_numbers, all_tenants.gone_codes;
            found.check_id := NULL;
            found.row_count := counts[1];
            found.detail := NULL;
            RETURN NEXT found;

            FOR i IN 1..cardinality(tests) LOOP
                CONTINUE WHEN counts[i + 1] = 0;
                test := tests[i];
                found.check_id := test ->> 'check';
                found.classid := CASE WHEN test ->> 'constraint' IS NULL THEN 'pg_class'::regclass ELSE 'pg_constraint'::regclass END;
                found.objid := COALESCE((test ->> 'constraint')::oid, t.relation);
                found.row_count := counts[i + 1];
                EXECUTE format('SELECT (SELECT CASE WHEN count(DISTINCT %1$s) = 1 THEN min(%1$s::text) END FROM %2$s WHERE %3$s),
                                       (SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT %4$s FROM %2$s WHERE %3$s LIMIT %5$s) AS s)',
                               COALESCE(t.tenant_value, 'NULL::text'), source, test ->> 'condition', tenancy_internal.shown_columns(t.relation), sample)
                   INTO found.tenant, found.sample_rows
                  USING all_tenants.ids, all_tenants.numbers, all_tenants.codes, all_tenants.gone_ids, all_tenants.gone_numbers, all_tenants.gone_codes;
                found.detail := test ->> 'detail';
                found.remedy := CASE found.check_id WHEN 'deleted_tenant_rows' THEN tenancy_internal.purge_call(t.tenant_key, found.tenant)
                                                    ELSE test ->> 'remedy' END;
                RETURN NEXT found;
                found.remedy := NULL;
            END LOOP;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
            RETURN NEXT ('not_examined', 'pg_class'::regclass, t.relation, 0, NULL, NULL, NULL, problem, NULL)::tenancy_internal.finding;
        END;
    END LOOP;

    FOR h IN SELECT * FROM tenancy_internal.describe_counters(tables) LOOP
        found := (NULL, 'pg_class'::regclass, h.relation, 0, NULL, NULL, NULL, NULL, NULL)::tenancy_internal.finding;
        problem := CASE WHEN h.tenant_value IS NULL THEN 'a hint is registered, but it is not protected'
                        ELSE tenancy_internal.reading_obstacle(h.relation) END;
        IF problem IS NOT NULL THEN
            found.check_id := 'not_examined';
            found.detail := problem;
            RETURN NEXT found;
            CONTINUE;
        END IF;
        BEGIN
            -- Keys that a tenant has twice; rows beyond the first of each count.
            shown_key := (SELECT string_agg(format('%L, concat(d.k%s)', n, p), ', ') FROM unnest(h.columns) WITH ORDINALITY AS u(n, p));
            EXECUTE format($q$
                WITH d AS MATERIALIZED (SELECT %1$s AS tenant, %2$s, count(*) AS n FROM %3$s c WHERE %4$s GROUP BY 1, %5$s HAVING count(*) > 1)
                SELECT sum(d.n - 1), CASE WHEN count(DISTINCT d.tenant) = 1 THEN min(d.tenant::text) END,
                       (SELECT jsonb_agg(s.twice) FROM (
                            SELECT jsonb_build_object('tenant', d.tenant, %6$s, 'rows', d.n) FROM d ORDER BY d.tenant LIMIT %7$s) AS s(twice))
                  FROM d $q$, h.tenant_value,
                (SELECT string_agg(format('c.%I AS k%s', n, p), ', ') FROM unnest(h.columns) WITH ORDINALITY AS u(n, p)), h.name, h.given,
                (SELECT string_agg((p + 1)::text, ', ') FROM unnest(h.columns) WITH ORDINALITY AS u(n, p)),
                shown_key, sample)
               INTO found.row_count, found.tenant, found.sample_rows;
            IF found.row_count > 0 THEN
                found.check_id := CASE h.kind WHEN 'number' THEN 'duplicate_number' ELSE 'duplicate_key' END;
                found.detail := format('(%s) of %s is not unique within a tenant.',
                                       (SELECT string_agg(quote_ident(n), ', ' ORDER BY p) FROM unnest(h.columns) WITH ORDINALITY AS u(n, p)), h.relation::regclass);
                RETURN NEXT found;
            END IF;
            CONTINUE WHEN h.kind <> 'number';
            EXECUTE format($q$
                WITH d AS MATERIALIZED (
                    SELECT g.* FROM (SELECT %1$s AS tenant, lag(c.%2$I::bigint) OVER (PARTITION BY %1$s ORDER BY c.%2$I::bigint) AS before, c.%2$I::bigint AS after
                                       FROM %3$s c WHERE c.%2$I IS NOT NULL) AS g
                     WHERE g.after > g.before + 1)
                SELECT sum(d.after - d.before - 1), CASE WHEN count(DISTINCT d.tenant) = 1 THEN min(d.tenant::text) END,
                       (SELECT jsonb_agg(s.gap) FROM (
                            SELECT jsonb_build_object('tenant', d.tenant, 'after', d.before, 'before', d.after) FROM d
                             ORDER BY d.tenant, d.before LIMIT %4$s) AS s(gap))
                  FROM d $q$, h.tenant_value, h.columns[1], h.name, sample)
               INTO found.row_count, found.tenant, found.sample_rows;
            IF found.row_count > 0 THEN
                found.check_id := 'number_gap';
                found.detail := format('Column %I of %s leaves out numbers of a tenant.', h.columns[1], h.relation::regclass);
                RETURN NEXT found;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
            RETURN NEXT ('not_examined', 'pg_class'::regclass, h.relation, 0, NULL, NULL, NULL, problem, NULL)::tenancy_internal.finding;
        END;
    END LOOP;

    -- The log knows the tenant of every row that has one; what was written before a table was protected had none to know.
    BEGIN
        IF has_table_privilege('tenancy_internal.audit_chunks', 'SELECT') THEN
            FOR found IN
                SELECT 'audit_without_tenant', 'pg_class'::regclass, p.relation::oid, 0, NULL, sum(e.row_count),
                       (SELECT jsonb_agg(to_jsonb(s)) FROM (
                            SELECT a.id, a.occurred_at, a.action, a.row_key FROM tenancy_internal.audit_entries a
                             WHERE a.tenant_id IS NULL AND a.relation = p.relation AND a.action NOT IN ('TRUNCATE') AND a.occurred_at > p.protected_at
                             ORDER BY a.id LIMIT sample) AS s),
                       format('Entries of the audit log about rows of %s have no tenant.', p.relation), NULL
                  FROM tenancy_internal.audit_nobodys(tables) AS e
                  JOIN tenancy.protected_tables p ON p.relation = e.relation
                 GROUP BY p.relation, p.protected_at
            LOOP
                RETURN NEXT found;
            END LOOP;
        ELSIF EXISTS (SELECT FROM tenancy.audited_tables) THEN
            RETURN NEXT ('not_examined', 'pg_class'::regclass, 'tenancy_internal.audit_chunks'::regclass, 0, NULL, NULL, NULL,
                         format('%s may not read the audit log', quote_ident(current_user)), NULL)::tenancy_internal.finding;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
        RETURN NEXT ('not_examined', 'pg_class'::regclass, 'tenancy_internal.audit_chunks'::regclass, 0, NULL, NULL, NULL, problem, NULL)
            ::tenancy_internal.finding;
    END;
END $$;

-- Entries of the audit log that have no tenant, though their table's rows have one each.
CREATE FUNCTION tenancy_internal.audit_nobodys(wanted oid[]) RETURNS TABLE (relation regclass, row_count bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.relation, sum(c.row_count)
      FROM tenancy_internal.audit_chunks c
      JOIN tenancy_internal.audit_layouts l ON l.id = c.layout
      JOIN tenancy_internal.protected_tables p ON p.relation = l.relation AND p.access = 'tenant'
     WHERE c.tenant_id IS NULL AND c.action IN ('I', 'U', 'D') AND c.occurred_at > p.protected_at
       AND (wanted IS NULL OR l.relation = ANY (wanted::regclass[]))
     GROUP BY l.relation
$$;

-- What find_row_defects and the repair of orphans call with their caller's rights.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'SELECT', 'TABLE', '{tenancy.integrity_hints}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.register_reference, tenancy.register_number, tenancy.register_unique,
        tenancy.register_user_table, tenancy.unregister_reference, tenancy.unregister_number, tenancy.unregister_unique,
        tenancy.unregister_user_table, tenancy_internal.find_row_defects, tenancy_internal.tally_rows,
        tenancy_internal.plain_tables, tenancy_internal.tenant_keys, tenancy_internal.describe_references,
        "tenancy_internal.describe_rows(oid[], oid[])", tenancy_internal.describe_counters, tenancy_internal.audit_nobodys,
        tenancy_internal.reading_obstacle, tenancy_internal.shown_columns, tenancy_internal.purge_call,
        tenancy_internal.compared_type, tenancy_internal.deletion_grace}');

COMMENT ON TABLE tenancy_internal.integrity_hints IS 'what no constraint says of a table and yet holds, for the checks to look after';
COMMENT ON VIEW tenancy.integrity_hints IS 'what no constraint says of a table and yet holds (tenancy.register_reference and others)';
COMMENT ON COLUMN tenancy.integrity_hints.columns IS 'for user_table that of the platform''s users and that of the tenant';
COMMENT ON FUNCTION tenancy.register_reference(regclass, name[], regclass, name[]) IS
    'tells the checks that columns refer to another table where no foreign key says so';
COMMENT ON FUNCTION tenancy.register_number(regclass, name) IS 'tells the checks that a column numbers each tenant''s rows, without gaps';
COMMENT ON FUNCTION tenancy.register_unique(regclass, name[]) IS 'tells the checks that columns are unique within each tenant';
COMMENT ON FUNCTION tenancy.register_user_table(regclass, name, name) IS
    'tells the checks where users are kept: one of the platform has no tenant, every other has one';
COMMENT ON FUNCTION tenancy.unregister_reference(regclass, name[]) IS 'takes back what tenancy.register_reference said';
COMMENT ON FUNCTION tenancy.unregister_number(regclass, name) IS 'takes back what tenancy.register_number said';
COMMENT ON FUNCTION tenancy.unregister_unique(regclass, name[]) IS 'takes back what tenancy.register_unique said';
COMMENT ON FUNCTION tenancy.unregister_user_table(regclass) IS 'takes back what tenancy.register_user_table said';
COMMENT ON FUNCTION tenancy_internal.checked_columns(regclass, name[], text) IS 'refuses what a hint cannot be about; gives the numbers of the columns';
COMMENT ON FUNCTION tenancy_internal.checked_tenant_column(regclass) IS 'the tenant column of a protected table; refuses any other';
COMMENT ON FUNCTION tenancy_internal.keep_hint(text, regclass, name[], regclass, name[]) IS 'puts a hint on record';
COMMENT ON FUNCTION tenancy_internal.forget_hint(text, regclass, name[]) IS 'takes a hint off the record';
COMMENT ON FUNCTION tenancy_internal.is_comparable(oid, oid) IS 'whether PostgreSQL''s own operators compare values of two types';
COMMENT ON FUNCTION tenancy_internal.shown_columns(oid) IS 'the columns of a relation as a sample shows them, without calling casts of users';
COMMENT ON FUNCTION tenancy_internal.describe_references(oid[], oid[]) IS 'foreign keys of protected tables or to them, and hints of references';
COMMENT ON FUNCTION tenancy_internal.describe_rows(oid[], oid[]) IS 'what is to be examined of the rows of each table';
COMMENT ON FUNCTION tenancy_internal.describe_counters(oid[]) IS 'the hints that are about all rows of a tenant together';
COMMENT ON FUNCTION tenancy_internal.tenant_keys() IS 'keys of all tenants, of those whose rows may be there, and of those past their grace';
COMMENT ON FUNCTION tenancy_internal.purge_call(text, text) IS 'what removes the rows of a deleted tenant';
COMMENT ON FUNCTION tenancy_internal.plain_tables(oid[]) IS 'tables of tenants'' rows that need nothing but a look at their tenants';
COMMENT ON FUNCTION tenancy_internal.tally_rows(oid[], smallint[], boolean[], uuid[], bigint[], text[]) IS
    'counts the rows of tables that the caller may read, and says whether each has a tenant among those given';
COMMENT ON FUNCTION tenancy_internal.reading_obstacle(oid) IS 'why the caller cannot examine all rows of a relation; NULL where he can';
COMMENT ON FUNCTION tenancy_internal.audit_nobodys(oid[]) IS 'entries of the audit log without a tenant, though their table''s rows have one each';
COMMENT ON FUNCTION tenancy_internal.find_row_defects(oid[], integer, boolean) IS 'what is wrong with rows, in one pass over each table';
