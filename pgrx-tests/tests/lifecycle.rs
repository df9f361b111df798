//! A tenant's life and end as programs meet it.

#[path = "lifecycle/begin.rs"]
mod begin;
#[path = "lifecycle/crash.rs"]
mod crash;
#[path = "lifecycle/purge.rs"]
mod purge;
#[path = "lifecycle/stamps.rs"]
mod stamps;
#[path = "lifecycle/world.rs"]
mod world;
