//! Which task is which.

/// The number of a task: FNV-1a over kind and subject. Two tasks of one number do not run at the same time, which is all
/// that comes of it.
pub fn number(kind: &str, subject: &str) -> u32 {
    let bytes = kind.bytes().chain([0]).chain(subject.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_subject_make_the_task() {
        assert_eq!(number("purge", "acme"), number("purge", "acme"));
        assert_ne!(number("purge", "acme"), number("purge", "globex"));
        assert_ne!(number("purge", "acme"), number("retention", "acme"));
        assert_ne!(number("a", "bc"), number("ab", "c"));
    }
}
