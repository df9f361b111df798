//! One connection, and what a test says of it. A panic points at the test's line and says what came instead.

use std::{
    cell::{RefCell, RefMut},
    fmt,
    sync::{Arc, Mutex},
};

use postgres::{Client, Config, Error, NoTls, Row, SimpleQueryMessage, error::DbError, types::ToSql};

use crate::db::Db;

/// A client's session. Text goes through the simple protocol, so `run` takes several statements at once
/// (in one implicit transaction, as psql's -c does).
pub struct Session {
    client: RefCell<Client>,
    notices: Arc<Mutex<Vec<DbError>>>,
    who: String,
    /// The database must not go before its sessions: `Db::new().login(...)` drops its `Db` at once. Declared after
    /// `client`, so that the connection is closed first.
    _database: Option<Db>,
}

impl Session {
    /// Connects and collects the notices and warnings that come.
    pub fn open(mut config: Config) -> Result<Self, Error> {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let inbox = Arc::clone(&notices);
        config.notice_callback(move |notice| {
            inbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(notice);
        });
        let who = config.get_user().unwrap_or("?").to_owned();
        let client = RefCell::new(config.connect(NoTls)?);
        Ok(Self { client, notices, who, _database: None })
    }

    pub(crate) fn keeping(mut self, database: Db) -> Self {
        self._database = Some(database);
        self
    }

    /// The connection itself, for what has no word here: COPY, prepared statements, cancelling.
    pub fn client(&self) -> RefMut<'_, Client> {
        self.client.borrow_mut()
    }

    /// Runs it; it must succeed.
    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.must(sql, self.try_run(sql));
    }

    pub fn try_run(&self, sql: &str) -> Result<(), Error> {
        self.client().batch_execute(sql)
    }

    /// Runs it for the task runner, whose errors are not panics.
    pub(crate) fn run_or_tell(&self, sql: &str) -> anyhow::Result<()> {
        self.try_run(sql).map_err(|error| anyhow::anyhow!("{sql}: {}", describe(&error)))
    }

    /// Rows of a statement with parameters (extended protocol).
    #[track_caller]
    pub fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.must(sql, self.try_query(sql, parameters))
    }

    pub fn try_query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.client().query(sql, parameters)
    }

    /// Rows as text: columns joined by `|`, a boolean `t` or `f`, NULL as `NULL`.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<String> {
        self.must(sql, self.try_rows(sql))
    }

    pub fn try_rows(&self, sql: &str) -> Result<Vec<String>, Error> {
        let messages = self.client().simple_query(sql)?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |row: &postgres::SimpleQueryRow| {
            (0..row.len()).map(|column| row.get(column).unwrap_or("NULL")).collect::<Vec<_>>().join("|")
        };
        Ok(rows.map(text).collect())
    }

    /// The one row as text.
    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        let mut rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "{} expected one row\n  from: {sql}\n  got: {rows:?}", self.who);
        rows.remove(0)
    }

    /// It returns exactly these rows, in this order.
    #[track_caller]
    pub fn sees(&self, sql: &str, expected: &[&str]) {
        same_rows(&self.who, sql, &self.rows(sql), expected);
    }

    /// It succeeds and its last statement touches `expected` rows.
    #[track_caller]
    pub fn changes(&self, expected: u64, sql: &str) {
        let changed = self.must(sql, self.try_change(sql));
        assert_eq!(changed, expected, "rows changed by {}\n  with: {sql}", self.who);
    }

    pub(crate) fn try_change(&self, sql: &str) -> Result<u64, Error> {
        let messages = self.client().simple_query(sql)?;
        let counts = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::CommandComplete(count) => Some(*count),
            _ => None,
        });
        Ok(counts.last().unwrap_or(0))
    }

    /// It fails with this SQLSTATE; returns the error for a look at message, detail and hint.
    #[track_caller]
    pub fn refused(&self, sqlstate: &str, sql: &str) -> DbError {
        refusal(&self.who, sqlstate, sql, self.try_run(sql))
    }

    /// The plan without costs.
    #[track_caller]
    pub fn explain(&self, sql: &str) -> String {
        self.rows(&format!("EXPLAIN (COSTS OFF) {sql}")).join("\n")
    }

    /// The server process.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.value("SELECT pg_catalog.pg_backend_pid()").parse().expect("a process id is a number")
    }

    /// The notices and warnings since the last call.
    pub fn notices(&self) -> Vec<DbError> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    pub fn who(&self) -> &str {
        &self.who
    }

    /// Not `unwrap_or_else`: `track_caller` does not reach through a closure, and the panic would point here.
    #[track_caller]
    fn must<T>(&self, sql: &str, outcome: Result<T, Error>) -> T {
        match outcome {
            Ok(done) => done,
            Err(error) => panic!("{} failed\n  with: {sql}\n  {}", self.who, describe(&error)),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("who", &self.who).finish_non_exhaustive()
    }
}

#[track_caller]
pub(crate) fn same_rows(who: &str, sql: &str, found: &[String], expected: &[&str]) {
    assert!(found == expected, "{who} sees other rows\n  with: {sql}\n  expected: {expected:#?}\n  found: {found:#?}");
}

#[track_caller]
pub(crate) fn refusal<T>(who: &str, sqlstate: &str, sql: &str, outcome: Result<T, Error>) -> DbError {
    match outcome {
        Ok(_) => panic!("{who} was to be refused with {sqlstate}, but was let\n  with: {sql}"),
        Err(error) => match error.as_db_error() {
            Some(refused) if refused.code().code() == sqlstate => refused.clone(),
            _ => panic!("{who} was to be refused with {sqlstate}\n  with: {sql}\n  but {}", describe(&error)),
        },
    }
}

/// An error with all that the server said of it.
pub(crate) fn describe(error: &Error) -> String {
    let Some(refused) = error.as_db_error() else {
        return error.to_string();
    };
    let mut text = format!("{} {}: {}", refused.severity(), refused.code().code(), refused.message());
    for (label, part) in [("detail", refused.detail()), ("hint", refused.hint()), ("context", refused.where_())] {
        if let Some(part) = part {
            text.push_str(&format!("\n  {label}: {part}"));
        }
    }
    text
}
