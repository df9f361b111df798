//! What clients did and got, and whether that may be: judged when all is over, from the record alone.

use std::collections::HashMap;

/// A tenant, by its place in the list.
pub type Whose = usize;

/// One statement of a client, the tenant it had set at that time, and what came back.
#[derive(Debug, Clone)]
pub struct Event {
    pub client: usize,
    pub said: String,
    pub context: Option<Whose>,
    pub deed: Deed,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Reads rows of anybody it can see.
    Read,
    /// Reads the marks that it has written itself: those that it must find, and those that it may.
    ReadOwn {
        must: Vec<u64>,
        may: Vec<u64>,
    },
    Write,
    /// Sets another tenant than the transaction's, or writes a row of another's.
    Trespass,
    /// Makes something that would carry rows into the next client's transaction.
    CarryOver,
    /// Looks for what another transaction may have left behind.
    LookAround,
    /// Changes a session's state and reads nothing.
    Manage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The tenants of the rows that came back.
    Rows(Vec<Whose>),
    Marks(Vec<u64>),
    Done,
    /// With this SQLSTATE.
    Refused(String),
    /// The connection ended; nobody knows what the server did.
    Lost,
}

/// What became of a row that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Committed,
    RolledBack,
    Unknown,
}

#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub mark: u64,
    pub whose: Whose,
    pub fate: Fate,
}

/// A row that is there in the end.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub mark: u64,
    pub whose: Whose,
}

/// No tenant is set.
const MISSING: &str = "55000";
const FORBIDDEN: &str = "42501";
/// Cancelled, by us or by a cancel request that came too late and met the next one; or an administrator ended it.
const INTERRUPTED: [&str; 2] = ["57014", "57P01"];
/// A prepared statement, a cursor, a table that is not there.
const ABSENT: [&str; 3] = ["26000", "34000", "42P01"];

/// What must not have been answered so; nothing when all is well.
pub fn faults(events: &[Event]) -> Vec<String> {
    let describe = |event: &Event, fault: &str| {
        format!(
            "client {} (tenant {:?}): {fault}\n  {}\n  {:?}",
            event.client, event.context, event.said, event.outcome
        )
    };
    events.iter().filter_map(|event| fault(event).map(|fault| describe(event, fault))).collect()
}

fn fault(event: &Event) -> Option<&'static str> {
    match &event.outcome {
        Outcome::Lost => return None,
        Outcome::Refused(state) if INTERRUPTED.contains(&&**state) => return None,
        Outcome::Rows(rows) if rows.iter().any(|whose| event.context != Some(*whose)) => {
            return Some("rows of a tenant that it was not");
        }
        _ => {}
    }
    let refused = |with: &[&str]| matches!(&event.outcome, Outcome::Refused(state) if with.contains(&&**state));
    match (&event.deed, event.context) {
        (Deed::Read | Deed::ReadOwn { .. } | Deed::Write, None) => {
            (!refused(&[MISSING])).then_some("a forgotten tenant is no error")
        }
        (Deed::ReadOwn { must, may }, Some(_)) => match &event.outcome {
            Outcome::Marks(found) if must.iter().any(|mark| !found.contains(mark)) => Some("own rows are missing"),
            Outcome::Marks(found) if found.iter().any(|mark| !must.contains(mark) && !may.contains(mark)) => {
                Some("rows that were rolled back, or written as another tenant")
            }
            Outcome::Marks(_) => None,
            _ => Some("it could not read"),
        },
        (Deed::Read | Deed::Write, Some(_)) => matches!(event.outcome, Outcome::Refused(_)).then_some("it was refused"),
        (Deed::Trespass, _) => (!refused(&[FORBIDDEN])).then_some("it was let"),
        (Deed::CarryOver, _) => {
            (!matches!(event.outcome, Outcome::Refused(_))).then_some("it can carry rows into another transaction")
        }
        (Deed::LookAround, _) => (!refused(&ABSENT)).then_some("something was left behind"),
        (Deed::Manage, _) => matches!(event.outcome, Outcome::Refused(_)).then_some("it was refused"),
    }
}

/// What is there that should not be, and what is not there that should be.
pub fn lost_or_misplaced(written: &[Written], kept: &[Kept]) -> Vec<String> {
    let mut found: HashMap<u64, Vec<Whose>> = HashMap::new();
    for row in kept {
        found.entry(row.mark).or_default().push(row.whose);
    }
    let mut wrong = Vec::new();
    for row in written {
        let owners = found.remove(&row.mark).unwrap_or_default();
        let right = match row.fate {
            Fate::Committed => owners == [row.whose],
            Fate::RolledBack => owners.is_empty(),
            Fate::Unknown => owners.is_empty() || owners == [row.whose],
        };
        if !right {
            wrong.push(format!("{row:?} belongs to {owners:?}"));
        }
    }
    wrong.extend(found.into_keys().map(|mark| format!("nobody wrote row {mark}")));
    wrong
}

#[test]
fn the_judge_finds_what_must_not_be() {
    let event = |context, deed, outcome| Event { client: 1, said: String::new(), context, deed, outcome };
    let refused = |state: &str| Outcome::Refused(state.to_owned());
    let own = |must: &[u64]| Deed::ReadOwn { must: must.to_vec(), may: vec![9] };
    for (wrong, context, deed, outcome) in [
        (true, Some(1), Deed::Read, Outcome::Rows(vec![1, 2])),
        (false, Some(1), Deed::Read, Outcome::Rows(vec![1, 1])),
        (false, Some(1), Deed::Read, Outcome::Rows(vec![])),
        (true, None, Deed::Read, Outcome::Rows(vec![])),
        (true, None, Deed::Read, refused("42501")),
        (false, None, Deed::Read, refused("55000")),
        (false, None, Deed::Read, refused("57014")),
        (true, None, Deed::Write, Outcome::Done),
        (true, Some(1), Deed::Write, refused("55000")),
        (true, Some(1), Deed::Trespass, Outcome::Done),
        (false, Some(1), Deed::Trespass, refused("42501")),
        (true, None, Deed::LookAround, Outcome::Rows(vec![2])),
        (true, None, Deed::LookAround, Outcome::Rows(vec![])),
        (false, None, Deed::LookAround, refused("34000")),
        (true, Some(1), Deed::CarryOver, Outcome::Done),
        (true, Some(1), own(&[7]), Outcome::Marks(vec![])),
        (true, Some(1), own(&[7]), Outcome::Marks(vec![7, 8])),
        (false, Some(1), own(&[7]), Outcome::Marks(vec![7, 9])),
        (false, Some(1), own(&[7]), Outcome::Lost),
    ] {
        let event = event(context, deed, outcome);
        assert_eq!(fault(&event).is_some(), wrong, "{event:?}");
    }
}

#[test]
fn the_judge_finds_rows_lost_doubled_moved_and_raised_from_the_dead() {
    let written = |mark, fate| Written { mark, whose: 1, fate };
    let kept = |mark, whose| Kept { mark, whose };
    let all = [written(1, Fate::Committed), written(2, Fate::RolledBack), written(3, Fate::Unknown)];
    for (wrong, rows) in [
        (0, vec![kept(1, 1)]),
        (0, vec![kept(1, 1), kept(3, 1)]),
        (1, vec![]),
        (1, vec![kept(1, 1), kept(1, 1)]),
        (1, vec![kept(1, 2)]),
        (1, vec![kept(1, 1), kept(2, 1)]),
        (1, vec![kept(1, 1), kept(3, 2)]),
        (1, vec![kept(1, 1), kept(4, 1)]),
    ] {
        assert_eq!(lost_or_misplaced(&all, &rows).len(), wrong, "{rows:?}");
    }
}
