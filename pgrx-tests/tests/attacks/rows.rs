//! The rows of THREATS.md: how much each is worth to an attacker, and in which settings its attack fails.
//!
//! This is what the product promises. A story whose row leaks in some setting asks `Stage::holds`, and asserts the leak
//! there as firmly as the refusal elsewhere, so that this table cannot drift from what the server does.

use crate::stage::Setting;
use Held::*;
use Severity::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

/// Where the attack fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Always,
    /// In every setting, once this is switched on or called. Its story does so.
    Chosen(&'static str),
    /// With the library in shared_preload_libraries.
    BehindFence,
    /// With `tenancy.strictness = strict` besides.
    Strict,
    /// Nowhere, and why.
    Never(&'static str),
}

impl Held {
    pub fn is_in(self, setting: Setting) -> bool {
        match self {
            Always | Chosen(_) => true,
            BehindFence => setting.has_fence(),
            Strict => setting == Setting::Strict,
            Never(_) => false,
        }
    }
}

/// Where that row holds.
#[track_caller]
pub fn held(id: &str) -> Held {
    match ROWS.iter().find(|row| row.0 == id) {
        Some(&(_, _, held)) => held,
        None => panic!("{id} is no row of THREATS.md"),
    }
}

const SIGNED: Held = Chosen("context_mode");
const SCHEMA: Held = Chosen("protect_schema");
const SCOPED: Held = Chosen("scope_unique");
const LOCKED: Held = Chosen("lock_down_catalogs");

#[rustfmt::skip]
const ROWS: &[(&str, Severity, Held)] = &[
    ("A01", Critical, Always),
    ("A02", Critical, Always),
    ("A03", Critical, Always),
    ("A04", Critical, Always),
    ("A07", Critical, Always),
    ("A08", Critical, Always),
    ("A09", High, Always),
    ("A10", High, Always),
    ("A11", High, Always),
    ("A12", Critical, Always),
    ("A13", Critical, Always),
    ("A14", High, Always),
    ("A15", High, Always),
    ("A17", Critical, Always),
    ("A18", Critical, Always),
    ("A19", High, Always),
    ("A20", High, Always),
    ("A21", Critical, Always),
    ("A23", Critical, Always),
    ("A24", Critical, SIGNED),
    ("A25", Critical, SIGNED),
    ("A26", High, Always),
    ("A27", Critical, Always),
    ("A28", Critical, Always),
    ("A29", High, Strict),
    ("A31", High, Strict),
    ("A32", Low, Strict),
    ("A33", Low, Strict),
    ("A34", Critical, Always),
    ("A35", High, Always),
    ("A36", Medium, Always),
    ("A38", Critical, Always),
    ("A39", High, Always),
    ("A41", Medium, Strict),
    ("B01", Critical, Always),
    ("B02", Critical, Always),
    ("B03", High, BehindFence),
    ("B04", Critical, BehindFence),
    ("B05", Critical, Always),
    ("B06", Critical, Always),
    ("B07", Critical, BehindFence),
    ("B08", Critical, BehindFence),
    ("B09", Critical, Always),
    ("B10", Critical, Always),
    ("B12", Critical, BehindFence),
    ("B14", Critical, BehindFence),
    ("B16", Critical, Always),
    ("B17", High, Always),
    ("B18", High, Always),
    ("B19", High, Strict),
    ("B20", High, Always),
    ("B22", Critical, Always),
    ("B23", Critical, Always),
    ("B24", High, Strict),
    ("B25", Critical, Always),
    ("B27", High, Always),
    ("B29", High, Never("what a trigger copies into a table without tenant column is that table's affair")),
    ("B30", High, Never("logical decoding reads below row security; REPLICATION is for replicas and subscribers only")),
    ("B31", High, Always),
    ("C01", High, Always),
    ("C02", Medium, Always),
    ("C03", High, Always),
    ("C04", Medium, Always),
    ("C05", Medium, SCOPED),
    ("C06", Medium, SCOPED),
    ("C07", Medium, SCOPED),
    ("C08", Low, SCOPED),
    ("C09", Medium, SCOPED),
    ("C11", Medium, Always),
    ("C13", Critical, Always),
    ("C14", Critical, Always),
    ("C15", Critical, Always),
    ("C16", Critical, Always),
    ("C18", High, Always),
    ("C19", Low, Never("a sequence is shared by all tenants; keys that tell nothing are uuids")),
    ("C20", Low, Always),
    ("C21", High, Always),
    ("C22", Critical, Always),
    ("C24", Medium, Always),
    ("C25", High, Always),
    ("C26", Low, Strict),
    ("D01", Critical, Always),
    ("D02", High, Always),
    ("D03", Critical, Always),
    ("D04", High, Always),
    ("D05", High, Always),
    ("D07", Medium, Strict),
    ("D08", High, Strict),
    ("D09", Low, Never("pg_class cannot be hidden")),
    ("D10", Low, LOCKED),
    ("D11", Low, Strict),
    ("D12", High, Always),
    ("D14", Medium, Always),
    ("D15", High, LOCKED),
    ("D16", Medium, LOCKED),
    ("D17", High, Strict),
    ("D18", Low, Strict),
    ("D19", Low, Strict),
    ("D20", Low, Never("a row's place in the file depends on all rows")),
    ("D22", Medium, Strict),
    ("D24", Medium, Always),
    ("D25", Low, LOCKED),
    ("D26", High, Strict),
    ("D27", Low, Strict),
    ("E01", Critical, SCHEMA),
    ("E02", Critical, Always),
    ("E03", Critical, Always),
    ("E04", Critical, Always),
    ("E05", High, Always),
    ("E07", Critical, Always),
    ("E08", Critical, Always),
    ("E09", High, Always),
    ("E10", Medium, Always),
    ("E11", Critical, Always),
    ("E12", Critical, BehindFence),
    ("E14", High, Always),
    ("E15", Medium, Always),
    ("E17", Critical, SCHEMA),
    ("E19", Critical, BehindFence),
    ("E20", Critical, BehindFence),
    ("E21", Critical, BehindFence),
    ("E23", Critical, Always),
    ("E25", Critical, BehindFence),
    ("E26", High, Always),
    ("E27", High, BehindFence),
    ("E28", Critical, Always),
    ("E29", High, Always),
    ("E30", High, Never("a table without the tenant column cannot be told from a table that all may read")),
    ("E31", High, Always),
    ("E32", Medium, Always),
    ("E34", Medium, Always),
    ("E35", Critical, Always),
    ("E36", Critical, Always),
    ("G01", Critical, Always),
    ("G02", Critical, Always),
    ("G03", High, Always),
    ("G04", High, Always),
    ("G05", High, Always),
    ("G06", High, Always),
    ("G07", Medium, Always),
    ("G10", Medium, Always),
    ("G11", Critical, Always),
    ("G12", Critical, Always),
    ("G13", Critical, Always),
    ("G14", High, Always),
    ("G15", Medium, Always),
];

/// Rows of severity high that no extension can hold. THREATS.md wants them written down (`document`) or found (`detect`).
const LEFT_OPEN: [&str; 3] = ["B29", "B30", "E30"];

/// The ids that a story's name begins with: `e02_e03_a_partition_...` is about E02 and E03.
fn ids(story: &str) -> Vec<String> {
    let is_id = |word: &&str| matches!(word.as_bytes(), [b'a'..=b'g', tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit());
    story.split('_').take_while(is_id).map(str::to_uppercase).collect()
}

fn told() -> Vec<String> {
    crate::STORIES.iter().flat_map(|stories| stories.iter()).flat_map(|story| ids(story)).collect()
}

#[test]
fn every_story_with_an_id_is_about_a_row() {
    // Section 8 of THREATS.md, the F rows, are CVEs of PostgreSQL.
    for id in told().iter().filter(|id| !id.starts_with('F')) {
        held(id);
    }
}

#[test]
fn nothing_of_severity_critical_or_high_leaks_in_strict_mode() {
    let open: Vec<&str> = ROWS
        .iter()
        .filter(|(_, severity, held)| *severity >= High && !held.is_in(Setting::Strict))
        .map(|(id, ..)| *id)
        .collect();
    assert_eq!(open, LEFT_OPEN);
}

#[test]
fn what_holds_nowhere_says_why() {
    for (id, _, held) in ROWS {
        if let Never(why) = held {
            assert!(why.len() > 20, "{id}: {why}");
        }
    }
}

#[test]
fn every_row_has_a_story() {
    let told = told();
    let missing: Vec<&str> = ROWS.iter().map(|row| row.0).filter(|id| !told.iter().any(|told| told == id)).collect();
    assert_eq!(missing, [""; 0], "each row of THREATS.md has a story named after it");
}

/// The cells of a line of the guide's table, without the frame.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    inner.map_or_else(Vec::new, |inner| inner.split('|').map(str::trim).collect())
}

#[test]
fn the_guide_says_of_every_row_what_this_table_says() {
    let path = pg_tenancy_tests::workspace::root().join("docs/security.md");
    let page = std::fs::read_to_string(&path).expect("there is a page about security");
    let section = |title: &str| {
        let (_, rest) = page.split_once(&format!("## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
        rest.split("\n## ").next().expect("a section has a text")
    };
    let table: Vec<Vec<&str>> =
        section("Every known attack").lines().map(cells).filter(|cells| cells.len() == 5).collect();
    let not_promised = section("What is not promised");
    for (id, _, held) in ROWS {
        let named: Vec<&Vec<&str>> = table.iter().filter(|cells| cells[4].split(' ').any(|word| word == *id)).collect();
        assert_eq!(named.len(), 1, "{id} stands once in the table of {}", path.display());
        let expected = [Setting::FirstUse, Setting::Shared, Setting::Strict].map(|setting| match held {
            Chosen(what) => format!("with `{what}`"),
            held if held.is_in(setting) => "yes".to_owned(),
            _ => "no".to_owned(),
        });
        for (cell, expected) in named[0][1..4].iter().zip(&expected) {
            assert!(cell.starts_with(expected.as_str()), "{id}: \"{cell}\" should say {expected}");
        }
        if matches!(held, Never(_)) {
            assert!(not_promised.contains(id), "{id} is not promised");
        }
    }
    let is_id = |word: &&str| word.len() == 3 && ids(&word.to_lowercase()).len() == 1;
    let unknown: Vec<&str> = table
        .iter()
        .flat_map(|cells| cells[4].split(' '))
        .filter(is_id)
        .filter(|id| !ROWS.iter().any(|row| row.0 == *id))
        .collect();
    assert_eq!(unknown, [""; 0], "each id is a row of THREATS.md");
}
