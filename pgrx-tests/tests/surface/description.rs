//! All that belongs to the extension as text, the same on every major: what `surface.golden` holds, and what must not
//! differ between a fresh installation and one that was upgraded.

use pg_tenancy_tests::Session;

/// Objects of one catalog; each row is the description of one, its first line the heading.
struct Kind {
    title: &'static str,
    sql: &'static str,
}

/// Describes the extension in the database of `admin`, a superuser.
pub fn describe(admin: &Session) -> String {
    // Names are qualified when nothing is on the path; the library defines its settings when it is loaded.
    admin.run("SET search_path = pg_catalog; LOAD '$libdir/pg_tenancy'");
    admin.run(HELPERS);
    let mut text = String::new();
    for Kind { title, sql } in KINDS {
        text.push_str(&format!("=== {title}\n"));
        for object in admin.rows(sql) {
            let lines = object.lines().map(str::trim_end);
            let mut lines = lines.filter(|line| !line.is_empty());
            text.push_str(lines.next().expect("an object has a heading"));
            text.push('\n');
            for line in lines {
                text.push_str(&format!("    {line}\n"));
            }
        }
        text.push('\n');
    }
    text
}

/// Temporary helpers of this session. Newer majors count row types and array types as members. Grants leave out the owner, whose rights differ between majors (MAINTAIN).
const HELPERS: &str = r"
CREATE FUNCTION pg_temp.grants(acl aclitem[], owner oid) RETURNS text LANGUAGE sql AS $$
    SELECT COALESCE('granted: ' || string_agg(who || ' ' || rights, '; ' ORDER BY who), 'granted to nobody')
      FROM (SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS who,
                   string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ', '
                              ORDER BY a.privilege_type) AS rights
              FROM aclexplode(acl) a WHERE a.grantee <> owner GROUP BY 1) g
$$;
CREATE FUNCTION pg_temp.comment(class oid, object oid, sub integer DEFAULT 0) RETURNS text LANGUAGE sql AS $$
    SELECT COALESCE((SELECT 'comment: ' || d.description FROM pg_description d
                      WHERE d.classoid = class AND d.objoid = object AND d.objsubid = sub), 'no comment')
$$;
CREATE FUNCTION pg_temp.is_by_product(class oid, object oid) RETURNS boolean LANGUAGE sql AS $$
    SELECT class = 'pg_type'::regclass
           AND EXISTS (SELECT FROM pg_type t WHERE object = t.typarray OR object = t.oid AND t.typrelid <> 0)
$$;
CREATE VIEW pg_temp.members AS
    SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pg_tenancy'
";

const KINDS: &[Kind] = &[
    Kind {
        title: "extension",
        sql: "SELECT concat_ws(chr(10), e.extname,
                  'in schema ' || e.extnamespace::regnamespace, CASE WHEN e.extrelocatable THEN 'relocatable' END,
                  pg_temp.comment('pg_extension'::regclass, e.oid),
                  (SELECT string_agg('dumped: ' || c.relation || COALESCE(' ' || NULLIF(c.condition, ''), ''), chr(10)
                                     ORDER BY c.relation::text)
                     FROM (SELECT unnest(e.extconfig)::regclass AS relation, unnest(e.extcondition) AS condition) c))
                FROM pg_extension e WHERE e.extname = 'pg_tenancy'",
    },
    Kind {
        title: "schemas",
        sql: "SELECT concat_ws(chr(10), n.nspname,
                  pg_temp.grants(COALESCE(n.nspacl, acldefault('n', n.nspowner)), n.nspowner),
                  pg_temp.comment('pg_namespace'::regclass, n.oid))
                FROM pg_temp.members m JOIN pg_namespace n ON n.oid = m.objid
               WHERE m.classid = 'pg_namespace'::regclass ORDER BY n.nspname",
    },
    Kind {
        title: "functions",
        sql: "SELECT concat_ws(chr(10),
                  p.pronamespace::regnamespace || '.' || p.proname || '(' || pg_get_function_arguments(p.oid) || ')',
                  'returns ' || COALESCE(pg_get_function_result(p.oid), 'nothing (procedure)'),
                  concat_ws(', ', l.lanname,
                      CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
                      CASE p.proparallel WHEN 's' THEN 'parallel safe' WHEN 'r' THEN 'parallel restricted'
                                         ELSE 'parallel unsafe' END,
                      CASE WHEN p.proisstrict THEN 'strict' END, CASE WHEN p.proleakproof THEN 'leakproof' END,
                      CASE WHEN p.prosecdef THEN 'security definer' END,
                      'set ' || array_to_string(p.proconfig, ' set ')),
                  pg_temp.grants(COALESCE(p.proacl, acldefault('f', p.proowner)), p.proowner),
                  pg_temp.comment('pg_proc'::regclass, p.oid))
                FROM pg_temp.members m JOIN pg_proc p ON p.oid = m.objid JOIN pg_language l ON l.oid = p.prolang
               WHERE m.classid = 'pg_proc'::regclass
               ORDER BY p.pronamespace::regnamespace::text, p.proname, pg_get_function_identity_arguments(p.oid)",
    },
    Kind {
        title: "tables, views, sequences",
        sql: "SELECT concat_ws(chr(10),
                  CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence'
                                 ELSE 'relation of kind ' || c.relkind::text END || ' ' || c.oid::regclass,
                  array_to_string(c.reloptions, ', '),
                  CASE WHEN c.relkind <> 'S' THEN (
                      SELECT string_agg(concat_ws(' ', 'column', a.attname, format_type(a.atttypid, a.atttypmod),
                                 CASE WHEN a.attnotnull THEN 'not null' END,
                                 CASE a.attidentity WHEN 'a' THEN 'identity always' WHEN 'd' THEN 'identity by default' END,
                                 'default ' || pg_get_expr(d.adbin, d.adrelid),
                                 '(' || NULLIF(pg_temp.grants(a.attacl, c.relowner), 'granted to nobody') || ')',
                                 '-- ' || col_description(c.oid, a.attnum)), chr(10) ORDER BY a.attnum)
                        FROM pg_attribute a
                        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END,
                  (SELECT string_agg('constraint ' || k.conname || ' ' || pg_get_constraintdef(k.oid), chr(10)
                                     ORDER BY k.conname)
                     FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype <> 'n'),
                  (SELECT string_agg(pg_get_triggerdef(t.oid)
                                     || CASE t.tgenabled WHEN 'O' THEN '' ELSE ' enabled ' || t.tgenabled::text END, chr(10)
                                     ORDER BY t.tgname)
                     FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
                  CASE WHEN c.relrowsecurity THEN 'row security'
                            || CASE WHEN c.relforcerowsecurity THEN ', forced' ELSE '' END END,
                  (SELECT string_agg(concat_ws(' ', 'policy', y.polname,
                                 CASE WHEN y.polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for', y.polcmd::text,
                                 'using ' || pg_get_expr(y.polqual, y.polrelid),
                                 'with check ' || pg_get_expr(y.polwithcheck, y.polrelid)), chr(10) ORDER BY y.polname)
                     FROM pg_policy y WHERE y.polrelid = c.oid),
                  pg_temp.grants(COALESCE(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner)), c.relowner),
                  CASE WHEN c.relkind <> 'S' THEN pg_temp.comment('pg_class'::regclass, c.oid) END)
                FROM pg_temp.members m JOIN pg_class c ON c.oid = m.objid
               WHERE m.classid = 'pg_class'::regclass ORDER BY c.oid::regclass::text",
    },
    Kind {
        title: "event triggers",
        sql: "SELECT concat_ws(chr(10), t.evtname,
                  'on ' || t.evtevent || ' of ' || array_to_string(t.evttags, ', ')
                      || CASE t.evtenabled WHEN 'O' THEN '' ELSE ' enabled ' || t.evtenabled::text END,
                  'calls ' || t.evtfoid::regproc, pg_temp.comment('pg_event_trigger'::regclass, t.oid))
                FROM pg_temp.members m JOIN pg_event_trigger t ON t.oid = m.objid
               WHERE m.classid = 'pg_event_trigger'::regclass ORDER BY t.evtname",
    },
    Kind {
        title: "other members",
        sql: "SELECT concat_ws(chr(10), pg_describe_object(m.classid, m.objid, 0),
                  (SELECT 'is ' || format_type(t.typbasetype, t.typtypmod) FROM pg_type t
                    WHERE m.classid = 'pg_type'::regclass AND t.oid = m.objid AND t.typtype = 'd'),
                  pg_temp.comment(m.classid, m.objid))
                FROM pg_temp.members m
               WHERE m.classid NOT IN ('pg_namespace'::regclass, 'pg_proc'::regclass, 'pg_class'::regclass,
                                       'pg_event_trigger'::regclass)
                 AND NOT pg_temp.is_by_product(m.classid, m.objid)
               ORDER BY 1",
    },
    Kind {
        title: "settings",
        sql: "SELECT concat_ws(chr(10), s.name, 'set by ' || s.context,
                  s.vartype || COALESCE(': ' || array_to_string(s.enumvals, ', '), ''), 'default ' || s.boot_val, s.short_desc)
                FROM pg_settings s WHERE s.name LIKE 'tenancy.%' OR s.name LIKE 'app.%' ORDER BY s.name",
    },
    Kind {
        title: "plans as installed",
        sql: "SELECT concat_ws(chr(10), name, limits::text, description) FROM tenancy.plans ORDER BY name",
    },
];
