//! What becomes of a tenant's rows in time, as programs meet it.

#[path = "lifecycle/stamps.rs"]
mod stamps;
