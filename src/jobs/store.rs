//! Turns at tasks.

use super::plan;
use crate::error::{JobError, TenancyError};
use crate::pg::turn;

pub fn take(kind: &str, subject: &str) -> Result<i64, TenancyError> {
    let task = task(kind, subject)?;
    if turn::take(task) {
        return Ok(i64::from(task.1));
    }
    Err(JobError::AtWork { kind: kind.to_owned(), subject: subject.to_owned() }.into())
}

pub fn has(kind: &str, subject: &str) -> Result<bool, TenancyError> {
    Ok(turn::has(task(kind, subject)?))
}

pub fn give(kind: &str, subject: &str) -> Result<(), TenancyError> {
    turn::give(task(kind, subject)?);
    Ok(())
}

fn task(kind: &str, subject: &str) -> Result<turn::Task, TenancyError> {
    turn::task(c"tenancy_internal", c"jobs", plan::number(kind, subject))
}
