//! The refusals of the jobs room.

use super::{Face, State};

/// Why a job cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobError {
    AtWork { kind: String, subject: String },
}

impl JobError {
    /// The refusal as the user reads it.
    pub fn face(&self) -> Face {
        match self {
            Self::AtWork { kind, subject } => {
                Face::new(State::ObjectInUse, format!("{kind} of \"{subject}\" is under way already"))
                    .hint("Wait for it to end; tenancy.jobs shows who does it and how far it is.")
            }
        }
    }
}
