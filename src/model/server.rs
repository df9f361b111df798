//! Which minor releases of PostgreSQL this extension can rely on.

/// What a cached plan keeps of a role's former rights: the last known way past policies in PostgreSQL itself.
const REASON: &str = "CVE-2026-14666: cached policies outlive a change of roles";

/// The first minor release of each major without a known way past row security.
const SOUND: [(i32, i32); 5] = [(14, 24), (15, 19), (16, 15), (17, 11), (18, 6)];

/// What a DBA is to know of a server of this `server_version_num`; nothing when all is well.
pub fn note(version: i32) -> Option<String> {
    let (major, minor) = (version / 10_000, version % 10_000);
    match SOUND.iter().find(|(known, _)| *known == major) {
        Some((_, least)) if minor < *least => Some(format!(
            "PostgreSQL {major}.{minor} has a known way past row security ({REASON}); update to {major}.{least}"
        )),
        None if major < SOUND[0].0 => Some(format!(
            "PostgreSQL {major} is past its end of life and keeps a known way past row security ({REASON}); \
             upgrade to a supported major"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_release_with_a_known_hole_is_named_with_the_one_that_closes_it() {
        for (major, least) in SOUND {
            assert_eq!(note(major * 10_000 + least), None);
            assert_eq!(note(major * 10_000 + least + 1), None);
            let note = note(major * 10_000 + least - 1).expect("a note");
            assert!(note.contains(&format!("update to {major}.{least}")), "{note}");
        }
    }

    #[test]
    fn a_major_past_its_end_of_life_is_sound_in_no_release() {
        let note = note(130_023).expect("a note");
        assert!(note.contains("PostgreSQL 13 is past its end of life"), "{note}");
    }

    #[test]
    fn a_major_newer_than_what_is_known_is_not_spoken_ill_of() {
        assert_eq!(note(190_000), None);
    }
}
