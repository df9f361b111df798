//! Nobody's code runs with rights that are not its own (THREATS.md, rows G01 to G15).
//!
//! `hostile.rs` calls every function and procedure of schema `tenancy`, as its recipe in `recipes.rs` says, on tables whose owner
//! has put traps wherever PostgreSQL takes code of his (`world.rs`). A function without a recipe fails the test, and so does
//! a recipe that never works where there are no traps. `walk.rs` does at random, from a seed, what applications, owners and
//! maintenance do beside each other. The attacks that succeeded once are stories of `attacks/deputy.rs`.

#[path = "deputy/ground.rs"]
mod ground;
#[path = "deputy/hostile.rs"]
mod hostile;
#[path = "deputy/recipes.rs"]
mod recipes;
#[path = "deputy/stage.rs"]
mod stage;
#[path = "deputy/walk.rs"]
mod walk;
#[path = "deputy/world.rs"]
mod world;
