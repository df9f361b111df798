//! The audit log as programs meet it.

#[path = "audit/access.rs"]
mod access;
#[path = "audit/changes.rs"]
mod changes;
#[path = "audit/images.rs"]
mod images;
#[path = "audit/past.rs"]
mod past;
#[path = "audit/retention.rs"]
mod retention;
#[path = "audit/seals.rs"]
mod seals;
