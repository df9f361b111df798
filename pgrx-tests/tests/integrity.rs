//! Integrity as programs meet it: each check finds its defect, names it, and its remedy mends it.

#[path = "integrity/answers.rs"]
mod answers;
#[path = "integrity/cases.rs"]
mod cases;
#[path = "integrity/keys.rs"]
mod keys;
#[path = "integrity/orphans.rs"]
mod orphans;
#[path = "integrity/paths.rs"]
mod paths;
#[path = "integrity/proof.rs"]
mod proof;
#[path = "integrity/protection.rs"]
mod protection;
#[path = "integrity/roles.rs"]
mod roles;
#[path = "integrity/rows.rs"]
mod rows;
