//! A table's owner sets traps, and others call what the extension has.
//!
//! Each call is made in a new session, for what a session remembers of an index is not computed again; a function in a
//! transaction that is rolled back, a procedure, which commits, in a database of its own. Afterwards the session is as it was, no row
//! has changed that the call was not for, nobody has become superuser, and no trap has run with rights that are not its author's.
//! What was refused is well. All that is not is told together.

use std::collections::{BTreeMap, BTreeSet};

use pg_tenancy_tests::{Cluster, Session, cluster::SUPERUSER, names::unique, quote_ident};

use crate::{
    recipes::{Call, Effect, OF_TABLES, OF_TENANTS_AND_ROLES, Recipe},
    stage::{Setting, stories},
    world::{Traps, World},
};

stories![owners_code_gets_no_rights_by_any_call];

/// What a session has: who it is, its tenant, and whatever it has set.
const STATE: &str = "SELECT pg_catalog.format('current_user=%s session_user=%s role=%s authorization=%s planted=%s mine=%s tenant=%s %s',
    current_user, session_user, pg_catalog.current_setting('role'), pg_catalog.current_setting('session_authorization'),
    pg_catalog.current_setting('deputy.planted', true), pg_catalog.current_setting('deputy.mine', true),
    pg_catalog.current_setting('app.current_tenant_id', true),
    (SELECT pg_catalog.string_agg(pg_catalog.format('%s=%s', s.name, pg_catalog.replace(s.setting, ' ', '')), ' ' ORDER BY s.name)
       FROM pg_catalog.pg_settings s
      WHERE s.source OPERATOR(pg_catalog.=) 'session' AND s.setting OPERATOR(pg_catalog.<>) s.reset_val
        AND s.name OPERATOR(pg_catalog.<>) ALL (ARRAY['app.current_tenant_id', 'transaction_isolation'])))";

/// What is called, and where: on the computed tables not what has nothing to do with tables.
const RECIPES: &[(&[Traps], &[Recipe])] = &[
    (&[Traps::Triggers, Traps::Harmless], OF_TENANTS_AND_ROLES),
    (&[Traps::Triggers, Traps::Expressions, Traps::Harmless], OF_TABLES),
];

#[derive(Debug, Clone, Copy)]
enum Who {
    Superuser,
    /// His search_path begins with the owner's schema.
    SuperuserWithPath,
    /// May act for the owner.
    Admin,
    /// The same, past row security.
    Bypass,
}

impl Who {
    fn role(self, world: &World) -> &str {
        match self {
            Self::Superuser | Self::SuperuserWithPath => SUPERUSER,
            Self::Admin => world.admin.name(),
            Self::Bypass => world.bypass.name(),
        }
    }

    fn is_superuser(self) -> bool {
        matches!(self, Self::Superuser | Self::SuperuserWithPath)
    }

    fn path(self) -> &'static str {
        if matches!(self, Self::SuperuserWithPath) { "e, pg_catalog, public" } else { "\"$user\", public" }
    }
}

/// What came of one call.
#[derive(Default)]
struct Outcome {
    worked: bool,
    refusal: Option<String>,
    violations: BTreeSet<String>,
}

/// What of all that is tried when nobody asks for more (`PG_TENANCY_DEPUTY=all`): each caller and each kind of traps, and each
/// setting with both kinds, but not all with all.
const CAST: &[(Setting, Traps, &[Who])] = &[
    (Setting::FirstUse, Traps::Triggers, &[Who::Superuser]),
    (Setting::FirstUse, Traps::Expressions, &[Who::Superuser]),
    (Setting::Shared, Traps::Triggers, &[Who::SuperuserWithPath]),
    (Setting::Shared, Traps::Expressions, &[Who::Bypass]),
    (Setting::Strict, Traps::Triggers, &[Who::Admin]),
    (Setting::Strict, Traps::Expressions, &[Who::Superuser]),
];

fn owners_code_gets_no_rights_by_any_call(setting: Setting) {
    let all = std::env::var("PG_TENANCY_DEPUTY").is_ok_and(|how| how == "all");
    let everybody = [Who::Superuser, Who::SuperuserWithPath, Who::Admin, Who::Bypass];
    let mut wrong = BTreeMap::new();
    for (_, traps, some) in CAST.iter().filter(|(place, ..)| *place == setting) {
        let world = World::on(&setting.cluster(), *traps);
        let callers: &[Who] = if all { &everybody } else { some };
        for who in callers {
            try_all(&world, *who, |call, outcome| {
                for violation in outcome.violations {
                    wrong.entry(format!("{who:?}: {call}")).or_insert_with(BTreeSet::new).insert(violation);
                }
            });
        }
    }
    tell(&wrong);
}

/// A recipe that works nowhere would prove nothing.
#[test]
fn every_recipe_works_where_nobody_has_set_a_trap() {
    let world = World::on(&Setting::FirstUse.cluster(), Traps::Harmless);
    let mut wrong = BTreeMap::new();
    try_all(&world, Who::Superuser, |call, outcome| {
        let mut said = outcome.violations;
        if !outcome.worked {
            said.insert(format!("does not work: {}", outcome.refusal.unwrap_or_default()));
        }
        if !said.is_empty() {
            wrong.insert(call.to_owned(), said);
        }
    });
    tell(&wrong);
}

#[test]
fn every_function_of_the_surface_has_a_recipe() {
    let db = pg_tenancy_tests::Db::new();
    let surface = db.admin().rows(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'tenancy'::regnamespace AND prokind <> 'a' ORDER BY proname COLLATE \"C\"",
    );
    let mut tried: Vec<_> = OF_TENANTS_AND_ROLES.iter().chain(OF_TABLES).map(|recipe| recipe.name.to_owned()).collect();
    tried.sort();
    assert_eq!(surface, tried, "each function and procedure of schema tenancy has one recipe in recipes.rs");
}

/// Makes every call of every recipe as that caller.
fn try_all(world: &World, who: Who, mut judge: impl FnMut(&str, Outcome)) {
    // What a function does is rolled back; what a procedure does stays, and another has its own.
    let (rolled_back, kept) = (Replica::of(world), Replica::of(world));
    let untouched = rolled_back.digest();
    let recipes = RECIPES.iter().filter(|(of, _)| of.contains(&world.traps)).flat_map(|(_, recipes)| *recipes);
    for call in recipes.flat_map(|recipe| recipe.calls) {
        for table in call.on {
            let sql = world.fill(&call.sql.replace("{t}", table));
            let outcome = if sql.starts_with("CALL ") {
                kept.try_procedure(world, who, call, &sql)
            } else {
                rolled_back.try_function(world, who, call, &sql, &untouched)
            };
            judge(&sql, outcome);
        }
    }
}

#[track_caller]
fn tell(wrong: &BTreeMap<String, BTreeSet<String>>) {
    let lines: Vec<_> =
        wrong.iter().flat_map(|(call, said)| said.iter().map(move |text| format!("{call}: {text}"))).collect();
    assert!(lines.is_empty(), "{} violations\n{}", lines.len(), lines.join("\n"));
}

/// A database like the world's.
struct Replica {
    cluster: Cluster,
    name: String,
}

impl Replica {
    fn of(world: &World) -> Self {
        let (cluster, name) = (world.db.cluster().clone(), unique("deputy"));
        cluster.superuser().run(&format!(
            "CREATE DATABASE {} TEMPLATE {}",
            quote_ident(&name),
            quote_ident(world.db.name())
        ));
        Self { cluster, name }
    }

    fn login(&self, role: &str) -> Session {
        Session::open(self.cluster.config(role, &self.name))
            .unwrap_or_else(|error| panic!("{role} cannot log in: {error}"))
    }

    /// The caller's session, in which he has set things of his own.
    fn enter(&self, world: &World, who: Who) -> Session {
        let session = self.login(who.role(world));
        session.run(&format!("SET search_path = {}; SET deputy.mine = kept; SET work_mem = '5MB'; SET statement_timeout = '2min'; SET lock_timeout = '90s'", who.path()));
        session.notices();
        session
    }

    fn digest(&self) -> Vec<String> {
        digest(&self.login(SUPERUSER)).expect("a superuser reads all rows")
    }

    fn try_function(&self, world: &World, who: Who, call: &Call, sql: &str, untouched: &[String]) -> Outcome {
        let session = self.enter(world, who);
        let mut outcome = Outcome::default();
        let outside = session.value(STATE);
        session.run("BEGIN");
        let inside = session.value(STATE);
        if outcome.settle(&session, session.try_run(sql), call.answer) {
            outcome.compare_states(&inside, &session.value(STATE), call.may);
            // What COMMIT would do.
            if let Err(error) = session.try_run("SET CONSTRAINTS ALL IMMEDIATE") {
                outcome.violations.insert(format!("fails at the end of the transaction: {error}"));
            } else {
                outcome.look_for_superusers(&session, world);
                // The fence lets no superuser read rows in a transaction of a tenant.
                if who.is_superuser() && call.may != Effect::Tenant {
                    outcome.compare_rows(untouched, digest(&session), call.may);
                }
            }
        }
        outcome.collect(&session);
        if let Err(error) = session.try_run("ROLLBACK") {
            outcome.violations.insert(format!("the session is lost: {error}"));
            return outcome;
        }
        outcome.compare_states(&outside, &session.value(STATE), Effect::Nothing);
        outcome
    }

    fn try_procedure(&self, world: &World, who: Who, call: &Call, sql: &str) -> Outcome {
        let auditor = self.login(SUPERUSER);
        auditor.run(&world.fill(&format!("SET deputy.off = 'on'; {}", call.before)));
        let untouched = digest(&auditor).expect("a superuser reads all rows");
        let session = self.enter(world, who);
        let mut outcome = Outcome::default();
        let before = session.value(STATE);
        let called = session.try_run(sql);
        outcome.settle(&session, called, "");
        match session.try_rows(STATE) {
            Ok(rows) => outcome.compare_states(&before, &rows.join(""), Effect::Nothing),
            Err(error) => {
                outcome.violations.insert(format!("the session is lost: {error}"));
            }
        }
        outcome.collect(&session);
        outcome.look_for_superusers(&auditor, world);
        auditor.run(&world.fill("ALTER ROLE EVIL NOSUPERUSER; ALTER ROLE APP NOSUPERUSER"));
        outcome.compare_rows(&untouched, digest(&auditor), Effect::Nothing);
        outcome
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let gone = self.cluster.superuser().try_run(&format!("DROP DATABASE {} WITH (FORCE)", quote_ident(&self.name)));
        if let Err(error) = gone {
            eprintln!("{} stays behind: {error}", self.name);
        }
    }
}

impl Outcome {
    /// Whether the call's transaction goes on.
    fn settle(&mut self, session: &Session, called: Result<(), postgres::Error>, answer: &str) -> bool {
        let Err(error) = called else {
            self.worked = true;
            return true;
        };
        match error.as_db_error() {
            Some(refusal) => {
                let state = refusal.code().code();
                self.worked = state == answer;
                if state.starts_with("XX") {
                    self.violations.insert(format!("{state}: {}", refusal.message()));
                }
                self.refusal = Some(format!("{state} {} {}", refusal.message(), refusal.detail().unwrap_or_default()));
            }
            None => {
                self.violations.insert(format!("{} has lost its server: {error}", session.who()));
            }
        }
        false
    }

    fn collect(&mut self, session: &Session) {
        let trapped = session.notices().into_iter().map(|notice| notice.message().to_owned());
        self.violations.extend(trapped.filter(|message| message.starts_with("TRAP")));
    }

    fn compare_states(&mut self, before: &str, after: &str, may: Effect) {
        let parts = |state: &str| -> BTreeSet<String> {
            state
                .split(' ')
                .filter(|part| may == Effect::Nothing || !part.starts_with("tenant="))
                .map(str::to_owned)
                .collect()
        };
        let (before, after) = (parts(before), parts(after));
        let (lost, new): (Vec<_>, Vec<_>) = (before.difference(&after).collect(), after.difference(&before).collect());
        if !lost.is_empty() || !new.is_empty() {
            self.violations.insert(format!("the session had {lost:?}, now {new:?}"));
        }
    }

    fn look_for_superusers(&mut self, session: &Session, world: &World) {
        let found = session.try_rows(&format!(
            "SELECT u.rolname FROM pg_catalog.pg_roles u WHERE u.rolsuper AND u.rolname OPERATOR(pg_catalog.<>) '{SUPERUSER}'"
        ));
        match found {
            Ok(names) if names.iter().any(|name| [world.evil.name(), world.app.name()].contains(&&**name)) => {
                self.violations.insert("SUPERUSER: the owner or the application has become one".to_owned());
            }
            Ok(_) => {}
            Err(error) => {
                self.violations.insert(format!("the session cannot look at roles: {error}"));
            }
        }
    }

    fn compare_rows(&mut self, before: &[String], after: Result<Vec<String>, postgres::Error>, may: Effect) {
        let after = match after {
            Ok(after) => after,
            Err(error) => {
                self.violations.insert(format!("rows cannot be read afterwards: {error}"));
                return;
            }
        };
        let own = format!("counts|{}", crate::world::ACME);
        for line in before.iter().filter(|line| !after.contains(line)) {
            if !(may == Effect::RowsOfTenant && line.starts_with(&own)) {
                self.violations.insert(format!("ROWS: {line} is gone or other"));
            }
        }
    }
}

/// Rows that no call is meant to change; traps sleep meanwhile. The fence lets a superuser read rows of all tenants where he works for none.
fn digest(session: &Session) -> Result<Vec<String>, postgres::Error> {
    session.try_run("SET deputy.off = 'on'; SELECT tenancy.clear_tenant()")?;
    session.try_rows("SELECT * FROM public.digest()")
}
