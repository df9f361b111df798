//! Ends a test with an error that points at the test's own line.

/// `unwrap` for what a test cannot go on without. Not `unwrap_or_else(|error| panic!(...))`: `track_caller` does not
/// reach through a closure.
#[track_caller]
pub fn must<T, E: std::fmt::Display>(outcome: Result<T, E>) -> T {
    match outcome {
        Ok(done) => done,
        // The alternate form of anyhow's errors is the whole chain of causes on one line.
        Err(error) => panic!("{error:#}"),
    }
}
