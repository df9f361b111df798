//! A tenant's life and end as programs meet it.

#[path = "lifecycle/begin.rs"]
mod begin;
#[path = "lifecycle/crash.rs"]
mod crash;
#[path = "lifecycle/maintenance.rs"]
mod maintenance;
#[path = "lifecycle/purge.rs"]
mod purge;
#[path = "lifecycle/retention.rs"]
mod retention;
#[path = "lifecycle/soft_delete.rs"]
mod soft_delete;
#[path = "lifecycle/stamps.rs"]
mod stamps;
#[path = "lifecycle/strangers.rs"]
mod strangers;
#[path = "lifecycle/world.rs"]
mod world;
