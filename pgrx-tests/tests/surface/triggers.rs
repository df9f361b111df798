//! Whoever has EXECUTE on a trigger function can put it anywhere: it says of every other call that it is none of its own, with
//! 39P01, and the server lives. The functions are read from the catalog, so that a later one is tried by itself.

use pg_tenancy_tests::{Db, Role, Session};

const TRIGGERS: &str = "SELECT p.proname FROM pg_proc p
  WHERE p.pronamespace IN ('tenancy'::regnamespace, 'tenancy_internal'::regnamespace) AND p.prorettype = 'trigger'::regtype
  ORDER BY 1";
const EVENT_TRIGGERS: &str = "SELECT p.proname FROM pg_proc p
  WHERE p.pronamespace IN ('tenancy'::regnamespace, 'tenancy_internal'::regnamespace) AND p.prorettype = 'event_trigger'::regtype
  ORDER BY 1";

/// Tables that a trigger may find itself on. Not all kinds take all triggers.
const TABLES: [&str; 5] = ["bare", "mistyped", "parted", "short_lived", "looked_at"];
const TIMES: [&str; 3] = ["BEFORE", "AFTER", "INSTEAD OF"];
const LEVELS: [&str; 2] = ["ROW", "STATEMENT"];
const EVENTS: [&str; 4] = ["INSERT", "UPDATE", "DELETE", "TRUNCATE"];
const ARGUMENTS: [&str; 2] = ["", "'a', 'b'"];

#[derive(Clone, Copy)]
struct Trigger<'a> {
    function: &'a str,
    table: &'a str,
    timing: &'a str,
    level: &'a str,
    arguments: &'a str,
}

impl Trigger<'_> {
    /// Whether the function is made for such a call, whatever it says of the table then.
    fn is_meant(&self, event: &str) -> bool {
        let (is_row, is_truncate) = (self.level == "ROW", event == "TRUNCATE");
        self.arguments.is_empty()
            && match self.function {
                "announce_change" => self.timing == "AFTER",
                // A trigger for the statement needs transition tables, which these have not.
                "audit_rows" => self.timing == "AFTER" && (is_row || is_truncate),
                "keep_row" => self.timing == "BEFORE" && is_row && ["UPDATE", "DELETE"].contains(&event),
                "stamp_row" => self.timing == "BEFORE" && is_row,
                "refuse_truncate" => self.timing == "BEFORE" && is_truncate,
                // Of tables of ours.
                "keep_plans" | "keep_tenants" => false,
                other => panic!("say here what {other} is made for"),
            }
    }

    /// Makes the trigger, fires it for each event, and gives what came where that is wrong.
    fn wrongs(&self, session: &Session) -> Vec<String> {
        let &Self { function, table, timing, level, arguments } = self;
        let events: &[&str] = if level == "ROW" || table == "looked_at" { &EVENTS[..3] } else { &EVENTS };
        let create = format!(
            "CREATE TRIGGER zz {timing} {} ON {table} FOR EACH {level} EXECUTE FUNCTION tenancy_internal.{function}({arguments})",
            events.join(" OR ")
        );
        session.run("BEGIN");
        let mut wrongs = Vec::new();
        match code(session.try_run(&create)) {
            None => wrongs.extend(events.iter().filter_map(|event| self.fire(session, event))),
            // PostgreSQL has no such trigger: on a view, or instead of what happens to a table.
            Some(state) if ["0A000", "42809"].contains(&&*state) => {}
            Some(state) => wrongs.push(state),
        }
        session.run("ROLLBACK");
        wrongs.iter().map(|wrong| format!("{create}: {wrong}")).collect()
    }

    fn fire(&self, session: &Session, event: &str) -> Option<String> {
        let table = self.table;
        let fire = match event {
            "INSERT" => format!("INSERT INTO {table} (id) VALUES (2)"),
            "UPDATE" => format!("UPDATE {table} SET id = id"),
            "DELETE" => format!("DELETE FROM {table}"),
            _ => format!("TRUNCATE {table}"),
        };
        session.run("SAVEPOINT one");
        let state = code(session.try_run(&fire));
        session.run("ROLLBACK TO one");
        let is_right = match (&state, self.is_meant(event)) {
            (None, true) => true,
            (Some(state), false) => state == "39P01",
            (Some(state), true) => !state.starts_with("XX") && state != "39P01",
            (None, false) => false,
        };
        (!is_right).then(|| format!("{fire}: {}", state.as_deref().unwrap_or("done")))
    }
}

/// The SQLSTATE of a refusal; the server was lost where there is none.
fn code(outcome: Result<(), postgres::Error>) -> Option<String> {
    outcome.err().map(|error| error.code().map_or_else(|| format!("XX lost: {error}"), |code| code.code().to_owned()))
}

fn administrator(db: &Db) -> Role {
    let role = db.role("administrator", "");
    let admin = db.admin();
    admin.run(&format!(
        "SELECT tenancy.grant_admin('{role}'); GRANT CREATE ON SCHEMA public TO {role};
         ALTER DATABASE \"{}\" SET tenancy.ddl_guard = off", // it looks at each trigger, which takes time
        db.name()
    ));
    for function in admin.rows(TRIGGERS) {
        admin.run(&format!("GRANT EXECUTE ON FUNCTION tenancy_internal.{function}() TO {role}"));
    }
    role
}

fn stage(session: &Session) {
    session.run(
        "CREATE TABLE bare (id int);
         CREATE TABLE mistyped (id int, code int, name bytea, builtin text, limits int, description point, created_at text,
                                created_by int, updated_at interval, updated_by int, deleted_at text, deleted_by int[]);
         CREATE TABLE parted (id int) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (2);
         CREATE TABLE high PARTITION OF parted FOR VALUES FROM (2) TO (9);
         CREATE TEMPORARY TABLE short_lived (id int, deleted_at timestamptz, deleted_by text);
         CREATE VIEW looked_at AS SELECT id FROM bare;
         CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN COALESCE(NEW, OLD); END';
         -- Without one, triggers for the statement do not fire.
         CREATE TRIGGER aa INSTEAD OF INSERT OR UPDATE OR DELETE ON looked_at FOR EACH ROW EXECUTE FUNCTION pass();
         INSERT INTO bare VALUES (1); INSERT INTO mistyped (id) VALUES (1); INSERT INTO parted VALUES (1);
         INSERT INTO short_lived VALUES (1)",
    );
}

#[test]
fn a_trigger_function_of_ours_refuses_what_it_is_not_made_for() {
    let db = Db::new();
    let session = db.login(&administrator(&db));
    stage(&session);
    let pid = session.pid();
    let mut wrong = Vec::new();
    for function in db.admin().rows(TRIGGERS) {
        for table in TABLES {
            for timing in TIMES {
                for level in LEVELS {
                    for arguments in ARGUMENTS {
                        let trigger = Trigger { function: &function, table, timing, level, arguments };
                        wrong.extend(trigger.wrongs(&session));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(session.pid(), pid);
}

#[test]
fn a_deferred_trigger_of_ours_refuses_what_it_is_not_made_for() {
    let db = Db::new();
    let session = db.login(&administrator(&db));
    stage(&session);
    for function in db.admin().rows(TRIGGERS) {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            let trigger = Trigger { function: &function, table: "bare", timing: "AFTER", level: "ROW", arguments: "" };
            session.run(&format!(
                "BEGIN; CREATE CONSTRAINT TRIGGER zz AFTER {event} ON bare DEFERRABLE INITIALLY DEFERRED
                     FOR EACH ROW EXECUTE FUNCTION tenancy_internal.{function}();
                 INSERT INTO bare VALUES (2); UPDATE bare SET id = 3; DELETE FROM bare"
            ));
            let state = code(session.try_run("SET CONSTRAINTS ALL IMMEDIATE"));
            let expected = if trigger.is_meant(event) { None } else { Some("39P01".to_owned()) };
            assert_eq!(state, expected, "{function} as a constraint trigger for {event}");
            session.run("ROLLBACK");
        }
    }
}

#[test]
fn an_audit_trigger_without_the_rows_of_its_event_writes_nothing() {
    let db = Db::new();
    let session = db.login(&administrator(&db));
    stage(&session);
    session.run("SELECT tenancy.audit_table('bare', allow_unscoped => true)");
    for (event, tables) in [
        ("INSERT", ""),
        ("UPDATE", ""),
        ("UPDATE", "REFERENCING OLD TABLE AS o"),
        ("UPDATE", "REFERENCING NEW TABLE AS n"),
        ("DELETE", ""),
    ] {
        session.run(&format!(
            "BEGIN; CREATE TRIGGER zz AFTER {event} ON bare {tables} FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.audit_rows()"
        ));
        let fire = match event {
            "INSERT" => "INSERT INTO bare VALUES (5)",
            "UPDATE" => "UPDATE bare SET id = 6",
            _ => "DELETE FROM bare",
        };
        session.refused("39P01", fire);
        session.run("ROLLBACK");
    }
}

#[test]
fn nobody_calls_a_trigger_function_of_ours_by_hand() {
    let admin = Db::new().admin();
    for (functions, state) in [(TRIGGERS, "39P01"), (EVENT_TRIGGERS, "39P03")] {
        for function in admin.rows(functions) {
            let refused = code(admin.try_run(&format!("SELECT tenancy_internal.{function}()")));
            // PL/pgSQL refuses by itself.
            assert!(
                refused.as_deref() == Some(state) || refused.as_deref() == Some("0A000"),
                "{function}: {refused:?}"
            );
        }
    }
}

#[test]
fn an_event_trigger_function_of_ours_refuses_what_it_is_not_made_for() {
    let admin = Db::new().admin();
    admin.run("CREATE TABLE things (id int)");
    let fires = [
        ("ddl_command_start", "CREATE TABLE others (id int)"),
        ("ddl_command_end", "CREATE TABLE others (id int)"),
        ("sql_drop", "DROP TABLE things"),
        ("table_rewrite", "ALTER TABLE things ALTER id TYPE bigint"),
    ];
    for function in admin.rows(EVENT_TRIGGERS) {
        let meant = admin.value(&format!(
            "SELECT evtevent FROM pg_event_trigger WHERE evtfoid = 'tenancy_internal.{function}'::regproc"
        ));
        let language = admin.value(&format!(
            "SELECT l.lanname FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
              WHERE p.oid = 'tenancy_internal.{function}'::regproc"
        ));
        for (event, fire) in fires {
            admin.run(&format!(
                "BEGIN; CREATE EVENT TRIGGER zz ON {event} EXECUTE FUNCTION tenancy_internal.{function}()"
            ));
            let state = code(admin.try_run(fire));
            // What is in PL/pgSQL asks PostgreSQL for what it needs, which refuses, or needs nothing.
            let is_right = match state.as_deref() {
                None => event == meant || language == "plpgsql",
                Some(state) => event != meant && state == "39P03",
            };
            assert!(is_right, "{function} on {event}: {state:?}");
            admin.run("ROLLBACK");
        }
    }
}
