//! Tables of every kind, with every feature, and code of their owner wherever PostgreSQL takes any.
//!
//! All of it is made by a superuser whose traps are asleep (`deputy.off`), and is given to `evil` at the end: what is refused to a
//! superuser on tables of others does not keep the world from being made. The harmless world is the same without that
//! end, and its traps never wake.

use pg_tenancy_tests::{Cluster, Db, Role, Session};

/// What an owner can leave on his tables. Not all at once: who refuses the first meets none of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traps {
    /// Triggers of every kind, and operators and functions that a search_path may find.
    Triggers,
    /// What is computed: defaults, generated columns, constraints, domains, indexes, casts, policies, rules, partition keys.
    Expressions,
    /// None that wakes; both kinds are there.
    Harmless,
}

/// Keys of tenants, for a superuser's INSERT and for keys of rows.
pub const ACME: &str = "11111111-1111-4111-8111-111111111111";
pub const GLOBEX: &str = "22222222-2222-4222-8222-222222222222";
/// Deleted, so that they can be purged.
pub const GONE: &str = "33333333-3333-4333-8333-333333333333";
pub const LEFT: &str = "44444444-4444-4444-8444-444444444444";

pub struct World {
    pub db: Db,
    pub traps: Traps,
    pub evil: Role,
    pub app: Role,
    /// Administers tenants and may act for `evil`.
    pub admin: Role,
    /// The same, past row security.
    pub bypass: Role,
    /// Roles for the calls about roles: one that is nothing yet, one of each kind.
    pub spare: Role,
    pub bound: Role,
    pub exempt: Role,
    /// The transaction that changed row 1 of acme in `e.audited`.
    pub transaction: String,
}

/// Tables of one kind each; `{}` stands for what every table has (see `COLUMNS`).
const TABLES: &str = r#"
CREATE TABLE e.heads ({}, CONSTRAINT heads_pkey PRIMARY KEY (tenant_id, id));
CREATE TABLE e.plain ({}, CONSTRAINT plain_pkey PRIMARY KEY (tenant_id, id), CONSTRAINT plain_key UNIQUE (id));
CREATE TABLE e.scoped ({}, CONSTRAINT scoped_key UNIQUE (id));
CREATE TABLE e.parted ({}, CONSTRAINT parted_pkey PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (tenant_id);
CREATE TABLE e.parted_acme PARTITION OF e.parted FOR VALUES IN ('ACME');
CREATE TABLE e.parted_gone PARTITION OF e.parted FOR VALUES IN ('GONE');
CREATE TABLE e.parted_rest PARTITION OF e.parted DEFAULT;
CREATE TABLE e.by_key ({}) PARTITION BY RANGE (PARTITION_KEY);
CREATE TABLE e.by_key_low PARTITION OF e.by_key FOR VALUES FROM (MINVALUE) TO (15);
CREATE TABLE e.by_key_rest PARTITION OF e.by_key DEFAULT;
CREATE TABLE e.parent ({});
CREATE TABLE e.child (extra text) INHERITS (e.parent);
CREATE TABLE e.tails ({}, head int, CONSTRAINT tails_fk FOREIGN KEY (tenant_id, head) REFERENCES e.heads (tenant_id, id)
    ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE e.tree ({}, parent int, CONSTRAINT tree_pkey PRIMARY KEY (tenant_id, id), CONSTRAINT tree_fk FOREIGN KEY (tenant_id, parent)
    REFERENCES e.tree (tenant_id, id) ON DELETE SET NULL (parent));
CREATE TABLE e.soft ({}, CONSTRAINT soft_pkey PRIMARY KEY (tenant_id, id));
CREATE TABLE e.soft_tails ({}, soft int, CONSTRAINT soft_tails_fk FOREIGN KEY (tenant_id, soft) REFERENCES e.soft (tenant_id, id)
    ON DELETE CASCADE);
CREATE TABLE e.stamped ({});
CREATE TABLE e.audited ({}, CONSTRAINT audited_pkey PRIMARY KEY (tenant_id, id));
CREATE TABLE e.kept ({}, CONSTRAINT kept_pkey PRIMARY KEY (tenant_id, id));
CREATE TABLE e.kept_tails ({}, kept int, CONSTRAINT kept_tails_fk FOREIGN KEY (tenant_id, kept) REFERENCES e.kept (tenant_id, id)
    ON DELETE SET NULL (kept));
CREATE TABLE e.arch ({});
CREATE TABLE e.orphans ({}, head int, CONSTRAINT orphans_pkey PRIMARY KEY (tenant_id, id));
CREATE TABLE e.quarantined ({}, head int, CONSTRAINT quarantined_pkey PRIMARY KEY (tenant_id, id));
CREATE TABLE e.everything ({}, k int DEFAULT 1, head int, CONSTRAINT everything_pkey PRIMARY KEY (tenant_id, id, k)) PARTITION BY LIST (k);
CREATE TABLE e.everything_1 PARTITION OF e.everything FOR VALUES IN (1);
CREATE TABLE e.everything_rest PARTITION OF e.everything DEFAULT;
CREATE TABLE e.raw ({});
CREATE TABLE later.raw ({});
CREATE TABLE fresh.raw ({});
"#;

/// Those of `TABLES` that rows are put into, and traps on.
pub const NAMES: &[&str] = &[
    "heads",
    "plain",
    "scoped",
    "parted",
    "by_key",
    "parent",
    "child",
    "tails",
    "tree",
    "soft",
    "soft_tails",
    "stamped",
    "audited",
    "kept",
    "kept_tails",
    "arch",
    "orphans",
    "quarantined",
    "everything",
    "raw",
];

const COLUMNS: &str = "id int NOT NULL, tenant_id uuid NOT NULL, at timestamptz NOT NULL DEFAULT pg_catalog.now(), body text, note int DEFAULT 1, boss boolean";
/// The same, computed. TABLE is the table's name.
const COMPUTED: &str = "id int NOT NULL, tenant_id uuid NOT NULL, at timestamptz NOT NULL DEFAULT pg_catalog.now(), body e.word,
    note int DEFAULT e.f('default of TABLE', 1), boss boolean, made int GENERATED ALWAYS AS (e.f('generated column of TABLE', id)) STORED,
    CHECK (e.b('check of TABLE'))";

/// The traps. `trap` tells whose rights it has, unless they are the author's or the application's; with a superuser's it takes them,
/// and where the session belongs to somebody else it looks for the way back to his.
/// An IMMUTABLE function may not write, but what it calls may.
const TRAPS: &str = r#"
CREATE FUNCTION e.trap(what text) RETURNS text LANGUAGE plpgsql VOLATILE AS $trap$
DECLARE
    ours name[] := ARRAY['EVIL', 'APP'];
    was name := current_user;
    way text;
BEGIN
    IF pg_catalog.current_setting('deputy.off', true) OPERATOR(pg_catalog.=) 'on' OR HARMLESS THEN
        RETURN what;
    END IF;
    IF current_user OPERATOR(pg_catalog.<>) ALL (ours) THEN
        RAISE WARNING 'TRAP % current_user=% session_user=% is_superuser=% tenant=%', what, current_user, session_user,
            pg_catalog.current_setting('is_superuser'), pg_catalog.current_setting('app.current_tenant_id', true);
        IF (SELECT u.rolsuper FROM pg_catalog.pg_roles u WHERE u.rolname OPERATOR(pg_catalog.=) current_user) THEN
            ALTER ROLE EVIL SUPERUSER;
        END IF;
    ELSIF session_user OPERATOR(pg_catalog.<>) ALL (ours) THEN
        FOREACH way IN ARRAY ARRAY['RESET ROLE', 'SET ROLE NONE', 'RESET SESSION AUTHORIZATION'] LOOP
            BEGIN
                EXECUTE way;
                IF current_user OPERATOR(pg_catalog.<>) ALL (ours) THEN
                    RAISE WARNING 'TRAP % current_user=% session_user=% is_superuser=% tenant=%', pg_catalog.format('%s by %s', what, way), current_user,
                        session_user, pg_catalog.current_setting('is_superuser'), pg_catalog.current_setting('app.current_tenant_id', true);
                    RAISE EXCEPTION 'as before';
                END IF;
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END LOOP;
    END IF;
    RETURN what;
END $trap$;
CREATE FUNCTION e.f(what text, value int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM e.trap(what); RETURN value; END $$;
CREATE FUNCTION e.b(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM e.trap(what); RETURN true; END $$;
CREATE FUNCTION e.s(what text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT e.trap(what) $$;
CREATE FUNCTION e.diff(float8, float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM e.trap('subtype_diff'); RETURN $1 OPERATOR(pg_catalog.-) $2; END $$;
"#;

/// Triggers for every time, level and event, of which some change what a session has set, and some put others off.
const TRIGGERS: &str = r#"
CREATE TABLE e.bomb (x int);
CREATE FUNCTION e.row_trap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM e.trap(pg_catalog.format('%s %s %s trigger on %s', TG_WHEN, TG_OP, TG_LEVEL, TG_TABLE_NAME));
    IF TG_LEVEL OPERATOR(pg_catalog.=) 'STATEMENT' OR TG_WHEN OPERATOR(pg_catalog.=) 'AFTER' THEN RETURN NULL; ELSIF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF;
END $$;
CREATE FUNCTION e.definer_trap() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM e.trap(pg_catalog.format('SECURITY DEFINER trigger on %s', TG_TABLE_NAME));
    IF pg_catalog.current_setting('deputy.off', true) OPERATOR(pg_catalog.=) 'on' OR HARMLESS THEN
        RETURN NULL;
    END IF;
    PERFORM pg_catalog.set_config('deputy.planted', 'by-definer', false);
    RETURN NULL;
END $$;
CREATE FUNCTION e.boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM e.trap('bomb'); RETURN NULL; END $$;
CREATE FUNCTION e.again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM e.trap(pg_catalog.format('deferred trigger on %s', TG_TABLE_NAME));
    SET CONSTRAINTS ALL DEFERRED;
    INSERT INTO e.bomb VALUES (1);
    RETURN NULL;
END $$;
CREATE FUNCTION e.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    deed text;
BEGIN
    IF pg_catalog.current_setting('deputy.off', true) OPERATOR(pg_catalog.=) 'on' OR HARMLESS THEN
        RETURN NULL;
    END IF;
    FOREACH deed IN ARRAY TG_ARGV LOOP
        BEGIN
            EXECUTE deed;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
    RETURN NULL;
END $$;
CREATE FUNCTION e.count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE e.counts SET n = n OPERATOR(pg_catalog.+) 1;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER boom AFTER INSERT ON e.bomb DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION e.boom();
DO $$
DECLARE
    t text;
    number int := 0;
    deeds text[] := ARRAY[
        $d$'SELECT pg_catalog.set_config(''search_path'', ''e, pg_catalog'', false)', 'SET deputy.planted = yes'$d$,
        $d$'RESET ALL', 'SET row_security = off', 'SET app.current_tenant_id = ''GLOBEX'''$d$,
        $d$'SET session_replication_role = replica', 'SET SESSION AUTHORIZATION DEFAULT', 'RESET ROLE', 'SET ROLE EVIL'$d$];
BEGIN
    FOREACH t IN ARRAY ARRAY[NAMES] LOOP
        EXECUTE format('CREATE TRIGGER a_before BEFORE INSERT OR UPDATE OR DELETE ON e.%I FOR EACH ROW EXECUTE FUNCTION e.row_trap()', t);
        EXECUTE format('CREATE TRIGGER z_after AFTER INSERT OR UPDATE OR DELETE ON e.%I FOR EACH ROW EXECUTE FUNCTION e.row_trap()', t);
        EXECUTE format('CREATE TRIGGER a_begin BEFORE INSERT OR UPDATE OR DELETE ON e.%I FOR EACH STATEMENT EXECUTE FUNCTION e.row_trap()', t);
        EXECUTE format('CREATE TRIGGER z_end AFTER INSERT OR UPDATE OR DELETE ON e.%I FOR EACH STATEMENT EXECUTE FUNCTION e.row_trap()', t);
        EXECUTE format('CREATE TRIGGER z_truncated BEFORE TRUNCATE ON e.%I FOR EACH STATEMENT EXECUTE FUNCTION e.row_trap()', t);
        EXECUTE format('CREATE TRIGGER z_definer AFTER INSERT OR UPDATE OR DELETE ON e.%I FOR EACH ROW EXECUTE FUNCTION e.definer_trap()', t);
        EXECUTE format('CREATE TRIGGER z_count AFTER INSERT OR UPDATE OR DELETE ON e.%I FOR EACH ROW EXECUTE FUNCTION e.count()', t);
        EXECUTE format('CREATE CONSTRAINT TRIGGER z_later AFTER INSERT OR UPDATE OR DELETE ON e.%I DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION e.again()', t);
        EXECUTE format('CREATE TRIGGER zz_meddle AFTER INSERT OR UPDATE OR DELETE ON e.%I FOR EACH ROW EXECUTE FUNCTION e.meddle(%s)', t, deeds[number % 3 + 1]);
        number := number + 1;
    END LOOP;
END $$;
"#;

/// Operators and functions that stand before PostgreSQL's own where a search_path has `e` in front.
const NAMESAKES: &str = r#"
DO $$
DECLARE
    o record;
    number int := 0;
BEGIN
    FOR o IN
        SELECT p.oprname, p.oprleft::regtype AS l, p.oprright::regtype AS r, p.oprresult::regtype AS result FROM pg_operator p
         WHERE p.oprname IN ('=', '<>', '<', '<=', '>', '>=', '||', '+', '-', '*', '/', '%', '->', '->>', '?', '~', '@>')
           AND p.oprleft::regtype::text = ANY ('{integer,bigint,text,name,uuid,oid,boolean,jsonb,interval,timestamp with time zone}')
           AND p.oprright::regtype::text = ANY ('{integer,bigint,text,name,uuid,oid,boolean,jsonb,interval,timestamp with time zone}')
    LOOP
        number := number + 1;
        EXECUTE format('CREATE FUNCTION e.op_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN PERFORM e.trap(%L);
                        RETURN $1 OPERATOR(pg_catalog.%s) $2; END $f$', number, o.l, o.r, o.result,
                       format('operator %s of %s and %s', o.oprname, o.l, o.r), o.oprname);
        EXECUTE format('CREATE OPERATOR e.%s (leftarg = %s, rightarg = %s, function = e.op_%s)', o.oprname, o.l, o.r, number);
    END LOOP;
    FOR o IN
        SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, p.pronargs, p.prorettype::regtype AS result FROM pg_proc p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset
           AND p.proname IN ('now', 'clock_timestamp', 'current_setting', 'set_config', 'quote_ident', 'quote_literal', 'lower', 'length',
                             'pg_has_role', 'pg_relation_size', 'date_trunc', 'md5', 'random', 'txid_current', 'pg_backend_pid', 'pg_get_expr')
           AND p.proargtypes::regtype[]::text[] <@ '{integer,bigint,text,name,uuid,oid,boolean,interval,timestamp with time zone,double precision,regclass}'
    LOOP
        EXECUTE format('CREATE FUNCTION e.%I(%s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN PERFORM e.trap(%L); RETURN pg_catalog.%I(%s); END $f$',
                       o.proname, o.arguments, o.result, 'function ' || o.proname, o.proname,
                       (SELECT string_agg('$' || n, ', ') FROM generate_series(1, o.pronargs) n));
    END LOOP;
END $$;
"#;

/// What is computed beside the columns. Where the server compares a foreign key through casts (before 18), one is the owner's.
const EXPRESSIONS: &str = r#"
CREATE TYPE e.spans AS RANGE (subtype = float8, subtype_diff = e.diff);
CREATE TABLE e.ranged (id int NOT NULL, tenant_id uuid NOT NULL, at timestamptz NOT NULL DEFAULT pg_catalog.now(), body text, span e.spans);
CREATE INDEX ranged_idx ON e.ranged USING gist (span);
CREATE TYPE e.key AS ENUM ('k', 'l', 'm');
CREATE FUNCTION e.key_text(e.key) RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN e.trap('cast of a foreign key') IS NULL THEN '' ELSE pg_catalog.concat($1) END $$;
CREATE TABLE e.words (tenant_id uuid NOT NULL, id int, at timestamptz NOT NULL DEFAULT pg_catalog.now(), body text, k text UNIQUE);
CREATE TABLE e.keyed (tenant_id uuid NOT NULL, id int, at timestamptz NOT NULL DEFAULT pg_catalog.now(), body text, k e.key);
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY[NAMES] LOOP
        EXECUTE format('CREATE INDEX ON e.%I (note) WHERE e.f(%L, 3) = 3', t, 'index predicate of ' || t);
        EXECUTE format('CREATE INDEX ON e.%I (e.f(%L, id))', t, 'index expression of ' || t);
        EXECUTE format('CREATE INDEX ON e.%I (e.s(%L), at)', t, 'constant index expression of ' || t);
        EXECUTE format('CREATE STATISTICS e.%I ON (e.f(%L, note)), id FROM e.%I', t || '_stats', 'statistics of ' || t, t);
    END LOOP;
    FOREACH t IN ARRAY ARRAY['plain', 'parted', 'tails', 'stamped', 'everything'] LOOP
        EXECUTE format('CREATE POLICY %I ON e.%I USING (e.b(%L))', t || '_own', t, 'permissive policy of ' || t);
        EXECUTE format('CREATE POLICY %I ON e.%I AS RESTRICTIVE USING (e.b(%L))', t || '_narrow', t, 'restrictive policy of ' || t);
    END LOOP;
    FOREACH t IN ARRAY ARRAY['stamped', 'raw'] LOOP
        EXECUTE format('CREATE RULE too_late AS ON DELETE TO e.%I DO ALSO SELECT e.trap(%L)', t, 'rule for DELETE on ' || t);
        EXECUTE format('CREATE RULE too_new AS ON UPDATE TO e.%I DO ALSO SELECT e.trap(%L)', t, 'rule for UPDATE on ' || t);
    END LOOP;
END $$;
CREATE VIEW e.seen AS SELECT tenant_id, id, body, e.f('view', 1) AS one FROM e.plain WHERE e.b('view');
CREATE FUNCTION e.instead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM e.trap('INSTEAD OF trigger'); RETURN NULL; END $$;
CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON e.seen FOR EACH ROW EXECUTE FUNCTION e.instead();
"#;

/// Tables of kinds that need such code.
const COMPUTED_TABLES: &str = r#"
SELECT tenancy.protect_table('e.ranged'), tenancy.protect_table('e.words'), tenancy.protect_table('e.keyed');
SELECT tenancy.set_retention('e.ranged', 'at', '10 days'), tenancy.set_retention('e.keyed', 'at', '10 days');
INSERT INTO e.ranged SELECT g, CASE g % 3 WHEN 0 THEN 'ACME'::uuid WHEN 1 THEN 'GLOBEX' ELSE 'GONE' END, now() - make_interval(days => g), 'x', e.spans(g, g + 1)
  FROM generate_series(1, 600) g;
"#;

/// A cast and a foreign key that compares through it.
const CAST: &str = r#"
CREATE CAST (e.key AS text) WITH FUNCTION e.key_text(e.key) AS IMPLICIT;
INSERT INTO e.words VALUES ('ACME', 1, now() - interval '1 year', 'old', 'k'), ('GLOBEX', 2, now() - interval '1 year', 'old', 'l'),
    ('GONE', 3, now(), 'gone', 'm');
INSERT INTO e.keyed SELECT tenant_id, id, at, body, k::e.key FROM e.words;
ALTER TABLE e.keyed ADD CONSTRAINT keyed_fk FOREIGN KEY (k) REFERENCES e.words (k);
SELECT tenancy.set_retention('e.words', 'at', '10 days');
"#;

const FEATURES: &str = r#"
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY[NAMES] LOOP
        CONTINUE WHEN t IN ('child', 'raw');
        PERFORM tenancy.protect_table(format('e.%I', t)::regclass);
    END LOOP;
END $$;
SELECT tenancy.protect_table('e.counts');
SELECT tenancy.scope_unique('e.scoped', 'scoped_key');
SELECT tenancy.enable_soft_delete(t::regclass) FROM unnest('{e.soft,e.everything}'::text[]) t;
SELECT tenancy.enable_stamps(t::regclass) FROM unnest('{e.stamped,e.everything}'::text[]) t;
SELECT tenancy.audit_table(t::regclass) FROM unnest('{e.audited,e.everything,e.kept}'::text[]) t;
SELECT tenancy.set_retention(t::regclass, 'at', '10 days') FROM unnest('{e.kept,e.everything,e.tree,e.by_key,e.parent}'::text[]) t;
SELECT tenancy.set_retention('e.arch', 'at', '10 days', action => 'archive');
SELECT tenancy.register_reference('e.stamped', '{note}', 'e.scoped', '{id}'), tenancy.register_unique('e.stamped', '{id}'),
       tenancy.register_number('e.stamped', 'id'), tenancy.register_user_table('e.stamped', 'boss');
"#;

/// Of acme and globex each a row that nobody is to touch, one whose time is over; of the third tenant, which is purged, one.
/// Then what is broken or gone: orphans, deleted rows, one in quarantine that could come back.
const ROWS: &str = r#"
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY[NAMES] LOOP
        EXECUTE format($i$INSERT INTO e.%I (id, tenant_id, at, body) VALUES (1, 'ACME', now(), 'canary'), (2, 'ACME', now() - interval '1 year', 'old'),
            (11, 'GLOBEX', now(), 'canary'), (12, 'GLOBEX', now() - interval '1 year', 'old'), (21, 'GONE', now(), 'gone'), (31, 'LEFT', now(), 'gone')$i$, t);
    END LOOP;
END $$;
INSERT INTO later.raw (id, tenant_id, body) VALUES (1, 'ACME', 'canary'), (11, 'GLOBEX', 'canary');
INSERT INTO fresh.raw (id, tenant_id, body) SELECT id, tenant_id, body FROM later.raw;
UPDATE e.tree SET parent = id + 1 WHERE id IN (1, 11);
UPDATE e.tails SET head = id;
UPDATE e.soft_tails SET soft = id;
UPDATE e.kept_tails SET kept = id;
UPDATE e.everything SET k = 2 WHERE id IN (2, 12);
SET CONSTRAINTS ALL IMMEDIATE;
INSERT INTO e.orphans (id, tenant_id, body, head) VALUES (3, 'ACME', 'orphan', 99), (13, 'GLOBEX', 'orphan', 99);
INSERT INTO e.quarantined (id, tenant_id, body, head) VALUES (3, 'ACME', 'orphan', 98);
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE e.orphans ADD CONSTRAINT orphans_fk FOREIGN KEY (tenant_id, head) REFERENCES e.heads (tenant_id, id) NOT VALID;
ALTER TABLE e.quarantined ADD CONSTRAINT quarantined_fk FOREIGN KEY (tenant_id, head) REFERENCES e.heads (tenant_id, id) NOT VALID;
UPDATE e.soft SET deleted_at = now() - interval '1 year' WHERE body::text = 'old';
UPDATE e.everything SET deleted_at = now() - interval '1 year' WHERE id = 12;
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE e.raw ALTER tenant_id DROP NOT NULL;
UPDATE e.raw SET tenant_id = NULL WHERE body::text = 'old';
"#;

/// Rows that no call is meant to change, and how often the owner's triggers counted, of the tenants that are not acted for too.
const DIGEST: &str = r#"
CREATE FUNCTION public.digest() RETURNS SETOF text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY[NAMES] LOOP
        CONTINUE WHEN to_regclass('e.' || t) IS NULL;
        RETURN QUERY EXECUTE format('SELECT concat_ws(''|'', %L, r.id, r.tenant_id, r.body) FROM e.%I AS r WHERE r.body::text = ''canary'' ORDER BY r.id', t, t);
    END LOOP;
    RETURN QUERY SELECT format('counts|%s|%s', r.tenant_id, r.n) FROM e.counts AS r ORDER BY r.tenant_id;
END $$;
"#;

/// All of schema e, and what the world has beside it, belongs to the owner from now on.
const GIVE_AWAY: &str = r#"
DO $$
DECLARE
    o record;
BEGIN
    FOR o IN
        SELECT format('ALTER %s %s OWNER TO EVIL', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, c.oid::regclass) AS ddl
          FROM pg_class c WHERE c.relnamespace IN ('e'::regnamespace, 'later'::regnamespace, 'fresh'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm')
        UNION ALL SELECT format('ALTER FUNCTION %s OWNER TO EVIL', p.oid::regprocedure) FROM pg_proc p WHERE p.pronamespace = 'e'::regnamespace
        UNION ALL SELECT format('ALTER SCHEMA %I OWNER TO EVIL', n.nspname) FROM pg_namespace n WHERE n.nspname IN ('e', 'later', 'fresh')
    LOOP
        EXECUTE o.ddl;
    END LOOP;
END $$;
"#;

/// A superuser's own, which fires on whatever is made of tables.
const EVENT_TRIGGER: &str = r#"
CREATE TABLE public.told (tag text);
GRANT INSERT ON public.told TO PUBLIC;
CREATE FUNCTION public.tell() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.told VALUES (TG_TAG); END $$;
CREATE EVENT TRIGGER tell ON ddl_command_end EXECUTE FUNCTION public.tell();
"#;

impl World {
    pub fn on(cluster: &Cluster, traps: Traps) -> Self {
        let db = cluster.db();
        let roles = ["evil", "app", "admin", "bypass", "spare", "bound", "exempt"];
        let [evil, app, admin, bypass, spare, bound, exempt] =
            roles.map(|hint| db.role(hint, if ["bypass", "exempt"].contains(&hint) { "BYPASSRLS" } else { "" }));
        let mut world = Self { db, traps, evil, app, admin, bypass, spare, bound, exempt, transaction: String::new() };
        world.furnish();
        world
    }

    fn furnish(&mut self) {
        let traps = self.traps;
        let dba = self.db.admin();
        let has = |kind: Traps| traps == kind || traps == Traps::Harmless;
        let say = |session: &Session, sql: &str| {
            session.run(&self.fill(&sql.replace("HARMLESS", &(traps == Traps::Harmless).to_string())));
        };
        say(
            &dba,
            "SET deputy.off = 'on'; SET tenancy.strictness = standard; CREATE SCHEMA e; CREATE SCHEMA later; CREATE SCHEMA fresh",
        );
        for (code, id) in [("acme", ACME), ("globex", GLOBEX), ("gone", GONE), ("left", LEFT)] {
            dba.run(&format!("SELECT tenancy.create_tenant('{code}', id => '{id}')"));
        }
        say(&dba, "SELECT tenancy.create_tenant(c) FROM unnest('{asleep,held}'::text[]) c");
        say(&dba, TRAPS);
        if has(Traps::Expressions) {
            say(&dba, "CREATE DOMAIN e.word AS text CHECK (e.b('domain'))");
        }
        for table in TABLES.trim().split(";\n").filter(|table| !table.is_empty()) {
            let name = table.trim().split([' ', '.']).nth(3).unwrap_or_default();
            let columns = if has(Traps::Expressions) { COMPUTED } else { COLUMNS };
            let key = if has(Traps::Expressions) { "e.f('partition key', id)" } else { "id" };
            let table = table.replace("PARTITION_KEY", &format!("({key})"));
            say(&dba, &table.replace("({}", &format!("({}", columns.replace("TABLE", name))));
        }
        say(&dba, "CREATE TABLE e.counts (n bigint NOT NULL, tenant_id uuid NOT NULL)");
        // It would look at each of two hundred triggers on tables that are nothing to it yet.
        dba.run("ALTER EVENT TRIGGER tenancy_guard_ddl DISABLE");
        if has(Traps::Triggers) {
            say(&dba, TRIGGERS);
            say(&dba, NAMESAKES);
        }
        if has(Traps::Expressions) {
            say(&dba, EXPRESSIONS);
        }
        dba.run("ALTER EVENT TRIGGER tenancy_guard_ddl ENABLE ALWAYS");
        say(&dba, FEATURES);
        say(&dba, ROWS);
        say(&dba, "CALL tenancy.repair_orphans('e.quarantined', 'quarantined_fk', 'quarantine', dry_run => false)");
        say(
            &dba,
            "INSERT INTO e.heads (id, tenant_id, body) VALUES (98, 'ACME', 'back'), (77, 'ACME', 'another'), (77, 'GLOBEX', 'another')",
        );
        say(&dba, "CREATE MATERIALIZED VIEW e.mv AS SELECT tenant_id, id FROM e.plain");
        if has(Traps::Expressions) {
            say(&dba, COMPUTED_TABLES);
            if traps == Traps::Expressions && self.db.cluster().major() < 18 {
                say(&dba, CAST);
            }
        }
        say(&dba, DIGEST);
        say(&dba, EVENT_TRIGGER);
        say(&dba, "SELECT tenancy.accept_finding('tenant_table_unprotected', 'later.raw', 'a test')");
        say(
            &dba,
            "SELECT tenancy.grant_usage('APP'), tenancy.grant_admin('ADMIN'), tenancy.grant_admin('BYPASS');
             SELECT tenancy.exempt_role('BYPASS', 'maintenance'), tenancy.exempt_role('EXEMPT', 'a test');
             SELECT tenancy.bind_role('BOUND', 'acme'), tenancy.suspend_tenant('asleep'), tenancy.set_legal_hold('held', 'case 1'),
                    tenancy.delete_tenant('gone'), tenancy.delete_tenant('left'), tenancy.add_signing_key('k1', 'HS256', '0123456789abcdef0123456789abcdef');
             SELECT tenancy.protect_schema('later');
             SELECT tenancy.lock_down_catalogs('BOUND');
             GRANT USAGE ON SCHEMA e TO APP, ADMIN, BYPASS; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA e TO APP;
             GRANT EVIL TO ADMIN, BYPASS; GRANT USAGE ON SCHEMA tenancy TO EVIL",
        );
        let client = self.db.login(&self.app);
        client.run(
            "SET deputy.off = 'on'; BEGIN; SELECT tenancy.set_tenant('acme');
             UPDATE e.audited SET note = 7 WHERE id = 1; UPDATE e.everything SET note = 7 WHERE id = 1",
        );
        self.transaction = client.value("SELECT pg_catalog.pg_current_xact_id()");
        client.run("COMMIT");
        dba.run(&self.fill("INSERT INTO e.counts (n, tenant_id) VALUES (0, 'ACME'), (0, 'GLOBEX')"));
        if traps != Traps::Harmless {
            dba.run(&self.fill(GIVE_AWAY));
        } else {
            // Rows of a table with rules are not given to a tenant.
            dba.run("DROP RULE too_late ON e.raw; DROP RULE too_new ON e.raw");
        }
    }

    /// Puts the names of this world into a text.
    pub fn fill(&self, sql: &str) -> String {
        let names = NAMES.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let words = [
            ("NAMES", &*names),
            ("ACME", ACME),
            ("GLOBEX", GLOBEX),
            ("GONE", GONE),
            ("LEFT", LEFT),
            ("EVIL", self.evil.name()),
            ("APP", self.app.name()),
            ("ADMIN", self.admin.name()),
            ("BYPASS", self.bypass.name()),
            ("SPARE", self.spare.name()),
            ("BOUND", self.bound.name()),
            ("EXEMPT", self.exempt.name()),
            ("XID", &self.transaction),
        ];
        words.iter().fold(sql.to_owned(), |text, (word, name)| text.replace(word, name))
    }
}
