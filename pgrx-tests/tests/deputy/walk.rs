//! Two applications, an owner, an administrator and a superuser do at random what each of them may, beside each other: DML of every form
//! for three tenants, features on and off, savepoints, cancels, maintenance, a fourth tenant that comes and is purged.
//!
//! Each row says whose it is. No statement for a tenant gives or changes a row of another, no counter moves but the acting
//! tenant's, maintenance changes no row that lives, no session keeps a setting that it had not before. A failure names the
//! seed, and the steps that led to it; `PG_TENANCY_SEED` walks the same way again, `PG_TENANCY_WALK_SECONDS=600` further.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    time::{Duration, Instant},
};

use pg_tenancy_tests::{Db, Role, Session, quote_ident};

use crate::{
    ground::{Chance, ROWS, SETTINGS, WORLD},
    stage::{Setting, stories},
};

stories![no_walk_meets_another_tenants_rows];

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const TABLES: [&str; 4] = ["notes", "events", "items", "links"];
/// Ids of rows are small, so that statements meet.
const IDS: usize = 12;
const SEED: u64 = 20_261_201;
/// A slow machine walks as far as this, too.
const FEWEST_STEPS: usize = 800;

fn no_walk_meets_another_tenants_rows(setting: Setting) {
    let seed = std::env::var("PG_TENANCY_SEED").map_or(SEED, |text| text.parse().expect("PG_TENANCY_SEED is a number"));
    let seconds = std::env::var("PG_TENANCY_WALK_SECONDS")
        .map_or(7, |text| text.parse().expect("PG_TENANCY_WALK_SECONDS is a number"));
    let mut walk = Walk::begin(setting, seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    while (Instant::now() < until || walk.log.len() < FEWEST_STEPS) && walk.wrong.is_empty() {
        walk.step();
    }
    let Walk { wrong, log, done, .. } = walk;
    assert!(
        wrong.is_empty(),
        "{}\nPG_TENANCY_SEED={seed} walks the same way again, after {} steps; the last ones:\n{}",
        wrong.join("\n"),
        log.len(),
        log[log.len().saturating_sub(40)..].join("\n")
    );
    eprintln!("{} steps: {done:?}", log.len());
    // A walk on which nothing works proves nothing.
    for form in [
        "insert",
        "update",
        "delete",
        "merge",
        "merge delete",
        "conflict",
        "copy in",
        "cursor",
        "prepared",
        "commit",
        "rollback",
        "forged",
        "maintenance",
        "feature",
    ] {
        assert!(
            done.get(form).is_some_and(|times| *times > 0),
            "no {form} has succeeded: {done:?}; PG_TENANCY_SEED={seed}"
        );
    }
}

/// A client, and what of a transaction it is in.
struct Client {
    session: Session,
    settings: String,
    /// The tenant of the open transaction.
    tenant: Option<&'static str>,
    has_savepoint: bool,
    prepared: BTreeSet<String>,
}

/// Rows and counters of a tenant: table, row, whether it lives.
type Holdings = BTreeMap<String, BTreeSet<(String, String, bool)>>;

struct Walk {
    /// Kept for its end: the database goes with it.
    _db: Db,
    chance: Chance,
    clients: Vec<Client>,
    maintainers: Vec<Session>,
    auditor: Session,
    held: Holdings,
    purged: usize,
    log: Vec<String>,
    wrong: Vec<String>,
    done: BTreeMap<&'static str, usize>,
}

impl Walk {
    fn begin(setting: Setting, seed: u64) -> Self {
        let db = setting.cluster().db();
        let dba = db.admin();
        TENANTS.iter().for_each(|code| drop(db.tenant(code)));
        dba.run(WORLD);
        let (owner, admin) = (db.role("owner", ""), db.role("admin", ""));
        let apps = [db.application("shop"), db.application("desk")];
        dba.run(&format!(
            "GRANT USAGE ON SCHEMA w TO {0}, {1}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA w TO {0}, {1};
             SELECT tenancy.grant_admin('{2}'); GRANT {3} TO {2}; GRANT USAGE ON SCHEMA tenancy TO {3}; ALTER SCHEMA w OWNER TO {3};
             DO $$ DECLARE t regclass; BEGIN
               FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'w'::regnamespace AND relkind IN ('r', 'p') LOOP
                 EXECUTE format('ALTER TABLE %s OWNER TO {3}', t);
               END LOOP;
             END $$;
             ALTER FUNCTION w.watch OWNER TO {3}; ALTER FUNCTION w.count OWNER TO {3}; ALTER FUNCTION w.keep OWNER TO {3}; ALTER FUNCTION w.touch OWNER TO {3}",
            apps[0], apps[1], admin, owner
        ));
        dba.run(&format!("ALTER DATABASE {} SET tenancy.deletion_grace = '0s'", quote_ident(db.name())));
        let clients = [&apps[0], &apps[1], &apps[0], &owner].map(|role| Client::new(&db, role));
        let maintainers = vec![db.admin(), db.login(&admin)];
        for session in &maintainers {
            session.run("SET lock_timeout = '200ms'");
        }
        let auditor = db.admin();
        let mut walk = Self {
            _db: db,
            chance: Chance(seed.max(1)),
            clients: clients.into(),
            maintainers,
            auditor,
            held: Holdings::new(),
            purged: 0,
            log: Vec::new(),
            wrong: Vec::new(),
            done: BTreeMap::new(),
        };
        walk.held = walk.look();
        walk
    }

    fn step(&mut self) {
        match self.chance.below(80) {
            0 => self.change_features(),
            1 | 2 => self.maintain(),
            3 if self.chance.one_in(2) => self.purge(),
            _ => self.work(),
        }
    }

    /// What everybody has, as committed.
    fn look(&mut self) -> Holdings {
        let mut found = Holdings::new();
        for row in self.auditor.query(ROWS, &[]) {
            let (tenant, table, text, lives): (String, String, String, bool) =
                (row.get(0), row.get(1), row.get(2), row.get(3));
            if table != "counts" && !text.contains(&format!("{tenant} ")) {
                self.wrong.push(format!("{table} has a row of {tenant} that is another's: {text}"));
            }
            found.entry(tenant).or_default().insert((table, text, lives));
        }
        found
    }

    fn succeeded(&mut self, form: &'static str) {
        *self.done.entry(form).or_default() += 1;
    }

    /// A statement of a client, or the begin or the end of its transaction.
    fn work(&mut self) {
        let at = self.chance.below(self.clients.len());
        let Some(tenant) = self.clients[at].tenant else {
            let tenant = self.chance.of(&TENANTS);
            let how = self.chance.of(&["SELECT tenancy.set_tenant", "SET LOCAL app.current_tenant_id ="]);
            self.say(
                at,
                &format!("BEGIN; {how} ('{tenant}')")
                    .replace("= ('", "= '")
                    .replace("')", if how.ends_with('=') { "'" } else { "')" }),
            );
            self.clients[at].tenant = Some(tenant);
            return;
        };
        match self.chance.below(20) {
            0 | 1 => self.end(at, "COMMIT"),
            2 => self.end(at, "ROLLBACK"),
            3 if self.clients[at].has_savepoint => {
                self.say(at, "ROLLBACK TO s");
            }
            3 => {
                self.clients[at].has_savepoint = self.say(at, "SAVEPOINT s").is_some();
            }
            _ => self.statement(at, tenant),
        }
    }

    fn end(&mut self, at: usize, how: &'static str) {
        let tenant = self.clients[at].tenant.take();
        self.clients[at].has_savepoint = false;
        if self.say(at, how).is_some() {
            self.succeeded(if how == "COMMIT" { "commit" } else { "rollback" });
        }
        self.go_back(at, "ROLLBACK");
        let client = &self.clients[at];
        client.session.notices();
        match client.session.try_rows(SETTINGS) {
            Ok(now) if now == [client.settings.as_str()] => {}
            Ok(now) => self.wrong.push(format!("session {at} had {}, now {now:?}", client.settings)),
            Err(error) => self.wrong.push(format!("session {at} is lost: {error}")),
        }
        self.nobody_else_changed(tenant.unwrap_or_default());
    }

    /// What cannot fail.
    fn go_back(&mut self, at: usize, how: &str) {
        if let Err(error) = self.clients[at].session.try_run(how) {
            self.wrong.push(format!("{how}: {error}"));
        }
    }

    fn nobody_else_changed(&mut self, tenant: &str) {
        let now = self.look();
        for other in TENANTS.iter().filter(|other| **other != tenant) {
            let (before, after) = (self.held.get(*other), now.get(*other));
            if before != after {
                let empty = BTreeSet::new();
                let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
                self.wrong.push(format!(
                    "work for \"{tenant}\" has changed rows of {other}: lost {:?}, new {:?}",
                    before.difference(after).collect::<Vec<_>>(),
                    after.difference(before).collect::<Vec<_>>()
                ));
            }
        }
        self.held = now;
    }

    /// Says it; what is refused ends the transaction, or goes back to the savepoint.
    fn say(&mut self, at: usize, sql: &str) -> Option<Vec<String>> {
        let tenant = self.clients[at].tenant.unwrap_or("-");
        let outcome = self.clients[at].session.try_rows(sql);
        let told = match &outcome {
            Ok(rows) => format!("{} rows", rows.len()),
            Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
        };
        self.log.push(format!("{at} {tenant}: {sql} -> {told}"));
        for notice in self.clients[at].session.notices() {
            if notice.message().starts_with("LEAK") {
                self.wrong.push(notice.message().to_owned());
            }
        }
        match outcome {
            Ok(rows) => {
                for row in rows
                    .iter()
                    .filter(|row| TENANTS.iter().any(|other| *other != tenant && row.contains(&format!("{other} "))))
                {
                    self.wrong.push(format!("{tenant} was given {row}"));
                }
                Some(rows)
            }
            Err(error) => {
                if error.code().is_none_or(|code| code.code().starts_with("XX")) {
                    self.wrong.push(format!("{sql}: {error}: {told}"));
                    return None;
                }
                if self.clients[at].has_savepoint {
                    self.go_back(at, "ROLLBACK TO s");
                } else if self.clients[at].tenant.is_some() && !sql.starts_with("COMMIT") {
                    self.end(at, "ROLLBACK");
                }
                None
            }
        }
    }

    fn statement(&mut self, at: usize, tenant: &'static str) {
        let table = self.chance.of(&TABLES);
        let id = self.chance.below(IDS);
        let k = 1 + self.chance.below(3);
        let age = self.chance.of(&["now()", "now()", "now() - interval '1 year'"]);
        let body = format!("{tenant} {}", self.log.len());
        let narrow =
            self.chance.of(&["true".to_owned(), format!("id = {id}"), format!("k = {k}"), format!("id < {id}")]);
        let (form, sql) = match self.chance.below(20) {
            0..=2 => ("insert", format!("INSERT INTO w.{table} (id, k, body, at) VALUES ({id}, {k}, '{body}', {age}) RETURNING body")),
            3 => ("update", format!("UPDATE w.{table} SET body = '{body}', k = {k} WHERE {narrow} RETURNING body")),
            4 => ("update", format!("UPDATE w.{table} AS t SET body = t.body || '.' FROM w.notes n WHERE n.id = t.id RETURNING n.body, t.body")),
            5 => ("delete", format!("DELETE FROM w.{table} WHERE {narrow} RETURNING body")),
            6 => ("delete", format!("DELETE FROM w.{table} AS t USING w.items i WHERE i.id = t.id AND i.id = {id} RETURNING t.body, i.body")),
            7 => (
                "conflict",
                if table == "events" {
                    format!("INSERT INTO w.events (id, k, body) VALUES ({id}, {k}, '{body}') ON CONFLICT DO NOTHING RETURNING body")
                } else {
                    format!(
                        "INSERT INTO w.{table} (id, k, body) VALUES ({id}, {k}, '{body}')
                         ON CONFLICT (tenant_id, id) DO UPDATE SET body = w.{table}.body || '+' RETURNING body"
                    )
                },
            ),
            8 | 9 => {
                let action = self.chance.of(&["DELETE", "UPDATE SET body = t.body || '~', k = s.k", "DO NOTHING"]);
                let and = self.chance.of(&["", "AND t.k = s.k "]);
                (
                    if action == "DELETE" { "merge delete" } else { "merge" },
                    format!(
                        "MERGE INTO w.{table} t USING (VALUES ({id}, {k}), ({}, 2)) AS s(id, k) ON t.id = s.id WHEN MATCHED {and}THEN {action}
                         WHEN NOT MATCHED THEN INSERT (id, k, body) VALUES (s.id, s.k, '{body}')",
                        id + 1
                    ),
                )
            }
            10 => (
                "cte",
                format!(
                    "WITH gone AS (DELETE FROM w.{table} WHERE {narrow} RETURNING id, k, body),
                          new AS (INSERT INTO w.loose (id, k, body, note) SELECT id, k, body, id FROM gone ON CONFLICT DO NOTHING RETURNING body)
                     SELECT body FROM gone UNION ALL SELECT body FROM new"
                ),
            ),
            11 => ("link", format!("INSERT INTO w.links (id, note, body) SELECT n.id, n.id, '{body}' FROM w.notes n WHERE {narrow} ON CONFLICT DO NOTHING RETURNING body")),
            12 => return self.copy_in(at, table),
            13 => return self.copy_out(at, tenant, table),
            14 => {
                let change = self.chance.of(&["DELETE FROM", "UPDATE"]);
                let set = if change == "UPDATE" { "SET body = body || '^'" } else { "" };
                (
                    "cursor",
                    format!(
                        "DECLARE c CURSOR FOR SELECT body FROM w.{table} WHERE {narrow} FOR UPDATE; FETCH 1 FROM c;
                         {change} w.{table} {set} WHERE CURRENT OF c RETURNING body; CLOSE c"
                    ),
                )
            }
            15 => return self.prepared(at, table, id),
            16 => ("function", "SELECT w.touch('w.items')".to_owned()),
            17 => {
                let other = TENANTS[(TENANTS.iter().position(|own| *own == tenant).unwrap_or(0) + 1) % TENANTS.len()];
                return self.forge(at, table, id, &body, other);
            }
            18 => (
                "cancelled",
                format!("SET LOCAL statement_timeout = '2ms'; UPDATE w.{table} SET body = body || '!' WHERE pg_sleep(0.002) IS NOT NULL; RESET statement_timeout"),
            ),
            _ => ("read", format!("SELECT t.body, n.body, (SELECT max(body) FROM w.items) FROM w.{table} t FULL JOIN w.notes n USING (id)")),
        };
        if self.say(at, &sql).is_some() {
            self.succeeded(form);
        }
    }

    fn prepared(&mut self, at: usize, table: &str, id: usize) {
        let change = self.chance.of(&["UPDATE", "DELETE", "SELECT"]);
        let name = format!("{}_{table}", change.to_lowercase());
        if !self.clients[at].prepared.contains(&name) {
            let what = match change {
                "UPDATE" => format!("UPDATE w.{table} SET body = body || '-' WHERE id <> $1 RETURNING body"),
                "DELETE" => format!("DELETE FROM w.{table} WHERE id = $1 RETURNING body"),
                _ => format!("SELECT body FROM w.{table} WHERE id <> $1"),
            };
            if self.say(at, &format!("PREPARE {name} (int) AS {what}")).is_none() {
                return;
            }
            self.clients[at].prepared.insert(name.clone());
        }
        match self.say(at, &format!("EXECUTE {name} ({id})")) {
            Some(_) => self.succeeded("prepared"),
            // What a setting does not let outlive a transaction is prepared anew.
            None => drop(self.clients[at].prepared.remove(&name)),
        }
    }

    fn forge(&mut self, at: usize, table: &str, id: usize, body: &str, other: &str) {
        let foreign = self.auditor.value(&format!("SELECT id FROM tenancy.tenants WHERE code = '{other}'"));
        let sql = self.chance.of(&[
            "INSERT INTO w.T (id, body, tenant_id) VALUES (I, 'B', 'F')",
            "UPDATE w.T SET tenant_id = 'F'",
            "UPDATE w.T SET body = 'taken' WHERE tenant_id = 'F' RETURNING body",
            "DELETE FROM w.T WHERE tenant_id = 'F' RETURNING body",
        ]);
        let sql = sql
            .replace("w.T", &format!("w.{table}"))
            .replace("'F'", &format!("'{foreign}'"))
            .replace("'B'", &format!("'{body}'"));
        let sql = sql.replace("(I,", &format!("({id},"));
        if self.say(at, &sql).is_some_and(|rows| !rows.is_empty()) {
            self.wrong.push(format!("{sql} has met rows"));
        }
        self.succeeded("forged");
    }

    /// PostgreSQL takes no COPY into a table with row security, but from whom that does not bind.
    fn copy_in(&mut self, at: usize, table: &str) {
        if self.say(at, &format!("COPY w.{table} (id, body) FROM STDIN")).is_some() {
            self.wrong.push(format!("COPY goes into w.{table}"));
        }
        self.succeeded("copy in");
    }

    fn copy_out(&mut self, at: usize, tenant: &'static str, table: &str) {
        let client = &self.clients[at];
        let mut text = String::new();
        let done = client
            .session
            .client()
            .copy_out(&format!("COPY (SELECT body FROM w.{table}) TO STDOUT"))
            .map(|mut out| out.read_to_string(&mut text));
        self.log.push(format!("{at}: COPY w.{table} TO STDOUT -> {}", done.is_ok()));
        if let Some(line) = text.lines().find(|line| !line.starts_with(tenant)) {
            self.wrong.push(format!("{tenant} was given by COPY {line}"));
        }
        match done {
            Ok(_) => self.succeeded("copy out"),
            Err(_) => self.after_copy(at),
        }
    }

    fn after_copy(&mut self, at: usize) {
        if self.clients[at].has_savepoint {
            self.go_back(at, "ROLLBACK TO s");
        } else {
            self.end(at, "ROLLBACK");
        }
    }

    /// A feature comes or goes. What lives stays, and no trigger of the owner's counts.
    fn change_features(&mut self) {
        let table = self.chance.of(&TABLES);
        let how = self.chance.of(&[
            "enable_soft_delete('w.T')",
            "disable_soft_delete('w.T', 'restore')",
            "disable_soft_delete('w.T', 'purge')",
            "enable_stamps('w.T')",
            "disable_stamps('w.T')",
            "audit_table('w.T')",
            "unaudit_table('w.T')",
            "set_retention('w.T', 'at', '20 days')",
        ]);
        self.tend("feature", &format!("SELECT tenancy.{}", how.replace("w.T", &format!("w.{table}"))));
    }

    fn maintain(&mut self) {
        let work = self.chance.of(&[
            "CALL tenancy.run_retention()",
            "CALL tenancy.run_retention(max_seconds => 1, batch_size => 2)",
            "CALL tenancy.purge_deleted()",
            "CALL tenancy.purge_deleted(batch_size => 2)",
            "CALL tenancy.maintain()",
            "CALL tenancy.repair_orphans('w.loose', 'loose_fk', 'null', dry_run => false)",
            "CALL tenancy.repair_orphans('w.loose', 'loose_fk', 'delete', dry_run => false)",
            "CALL tenancy.repair_orphans('w.loose', 'loose_fk', 'quarantine', dry_run => false)",
            "SELECT count(*) FROM tenancy.check_integrity(deep => true)",
            "SELECT count(*) FROM tenancy.prove_isolation('w.notes')",
            "SELECT count(*) FROM tenancy.diagnose('acme')",
        ]);
        if work.contains("loose_fk") {
            let key = "ALTER TABLE w.loose ADD CONSTRAINT loose_fk FOREIGN KEY (tenant_id, note) REFERENCES w.notes (tenant_id, id) NOT VALID";
            self.tend("key", key);
        }
        self.tend("maintenance", work);
        if work.contains("loose_fk") {
            self.tend("key", "ALTER TABLE w.loose DROP CONSTRAINT IF EXISTS loose_fk");
        }
    }

    /// Mostly when no transaction is open: else it waits for a lock, and gives up.
    fn tend(&mut self, form: &'static str, sql: &str) {
        if !self.chance.one_in(4) {
            (0..self.clients.len())
                .filter(|at| self.clients[*at].tenant.is_some())
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|at| self.end(at, "COMMIT"));
        }
        let at = self.chance.below(self.maintainers.len());
        let session = &self.maintainers[at];
        let settings = session.value(SETTINGS);
        let outcome = session.try_rows(sql);
        let told = outcome
            .as_ref()
            .err()
            .map_or_else(String::new, |error| error.to_string() + error.code().map_or("", |code| code.code()));
        self.log.push(format!("maintainer {at}: {sql} -> {told}"));
        let trapped = session.notices().into_iter().filter(|notice| notice.message().starts_with("LEAK"));
        self.wrong.extend(trapped.map(|notice| notice.message().to_owned()));
        let now = session.value(SETTINGS);
        if now != settings {
            self.wrong.push(format!("{sql}: the session had {settings}, now {now}"));
        }
        match outcome {
            Ok(_) => self.succeeded(form),
            Err(error) if error.code().is_none_or(|code| code.code().starts_with("XX")) => {
                self.wrong.push(format!("{sql}: {error} {told}"))
            }
            Err(_) => {}
        }
        let now = self.look();
        for (tenant, before) in &self.held {
            let after = now.get(tenant);
            let stays = |(table, _, lives): &&(String, String, bool)| {
                table == "counts" || *lives && !["links", "loose"].contains(&&**table)
            };
            let lost: Vec<_> =
                before.iter().filter(stays).filter(|row| !after.is_some_and(|after| after.contains(row))).collect();
            if !lost.is_empty() {
                self.wrong.push(format!(
                    "{sql} has changed of {tenant}: {lost:?}, which has now {:?}",
                    after.map(|after| {
                        after
                            .iter()
                            .filter(|(table, ..)| lost.iter().any(|(other, ..)| other == table))
                            .collect::<Vec<_>>()
                    })
                ));
            }
        }
        self.held = now;
    }

    /// A tenant comes, works, and is purged; the others have what they had.
    fn purge(&mut self) {
        (0..self.clients.len())
            .filter(|at| self.clients[*at].tenant.is_some())
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|at| self.end(at, "COMMIT"));
        self.purged += 1;
        let code = format!("gone{}", self.purged);
        let (steward, client) = (&self.maintainers[0], &self.clients[0].session);
        steward.run(&format!("SELECT tenancy.create_tenant('{code}')"));
        client.run(&format!("BEGIN; SELECT tenancy.set_tenant('{code}'); INSERT INTO w.counts VALUES (0)"));
        for table in TABLES {
            client.run(&format!(
                "INSERT INTO w.{table} (id, body) SELECT g, '{code} ' || g FROM generate_series(1, 5) g"
            ));
        }
        client.run("COMMIT");
        client.notices();
        self.held = self.look();
        let steward = &self.maintainers[0];
        steward.run(&format!("SELECT tenancy.delete_tenant('{code}')"));
        let purge = format!("CALL tenancy.purge_tenant('{code}', '{code}', dry_run => false, batch_size => 3)");
        let outcome = steward.try_run(&purge);
        self.log.push(format!("{purge} -> {outcome:?}"));
        if outcome.is_ok() {
            self.succeeded("purge");
        }
        self.held.remove(&code);
        self.nobody_else_changed(&code);
    }
}

impl Client {
    fn new(db: &Db, role: &Role) -> Self {
        let session = db.login(role);
        session.run("SET lock_timeout = '100ms'; SELECT tenancy.has_tenant()");
        let settings = session.value(SETTINGS);
        Self { session, settings, tenant: None, has_savepoint: false, prepared: BTreeSet::new() }
    }
}
