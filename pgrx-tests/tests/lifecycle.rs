//! What becomes of a tenant's rows in time, as programs meet it.

#[path = "lifecycle/soft_delete.rs"]
mod soft_delete;
#[path = "lifecycle/stamps.rs"]
mod stamps;
