//! The house rules that no compiler knows (ARCHITECTURE): the law of names, the direction of floors, where the seam to
//! PostgreSQL lies, and what no guard may do. Reads the tree; needs no server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use pg_tenancy_tests::workspace::root;

/// Which floor a module of `src/` lives on. `use` and `requires` point to lower numbers only.
const FLOORS: &[(&str, u8)] = &[
    ("error", 0),
    ("model", 0),
    ("pg", 1),
    ("registry", 2),
    ("context", 2),
    ("jobs", 2),
    ("isolation", 3),
    ("fence", 3),
    ("audit", 4),
    ("quota", 4),
    ("masking", 4),
    ("integrity", 5),
    ("lifecycle", 5),
    ("portability", 5),
    ("adoption", 5),
    ("monitoring", 6),
];

/// The first floor that has rooms; below it lies what all of them stand on.
const FIRST_ROOM_FLOOR: u8 = 2;

/// Client tests that belong to no single room.
const CROSS_CUTTING: &[&str] = &[
    "attacks",
    "clients",
    "deputy",
    "demo",
    "docs",
    "dump",
    "folding",
    "harness",
    "history",
    "parallel",
    "poolers",
    "standby",
    "structure",
    "surface",
    "upgrade",
];

/// Longer than this, and a file does two things.
const MOST_LINES: usize = 1000;
/// A room has one file of stories, whatever it has to tell.
const MOST_LINES_OF_STORIES: usize = 1500;

#[test]
fn a_room_has_its_name_everywhere() {
    let rooms = rooms();
    let mut wrong = Vec::new();
    for room in &rooms {
        for place in [
            format!("src/{room}/mod.rs"),
            format!("sql/{room}.sql"),
            format!("docs/{room}.md"),
            format!("pgrx-tests/tests/{room}.rs"),
            format!("pgrx-tests/regress/sql/{room}.sql"),
        ] {
            if !root().join(&place).is_file() {
                wrong.push(format!("room {room} has no {place}"));
            }
        }
    }
    for stem in stems("sql", "sql") {
        let special = ["bootstrap", "finalize"].contains(&&*stem) || stem.contains("--");
        if !special && !rooms.contains(&stem) {
            wrong.push(format!("sql/{stem}.sql belongs to no room in src/"));
        }
    }
    for stem in stems("pgrx-tests/tests", "rs") {
        if !rooms.contains(&stem) && !CROSS_CUTTING.contains(&&*stem) {
            wrong.push(format!(
                "pgrx-tests/tests/{stem}.rs belongs to no room; if it cuts across all, list it in CROSS_CUTTING"
            ));
        }
    }
    nothing(wrong);
}

#[test]
fn every_module_stands_on_a_floor() {
    let known: BTreeSet<&str> = FLOORS.iter().map(|(module, _)| *module).collect();
    let strangers = modules()
        .into_iter()
        .filter(|module| !known.contains(&**module))
        .map(|module| format!("src/{module} has no floor; give it one in FLOORS"));
    nothing(strangers.collect());
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let Some(here) = module_of(&file) else {
            continue;
        };
        for (number, there) in crate_paths(&Source::read(&file).code) {
            if !may_use(&here, &there) {
                let what = format!("{here} must not use crate::{there}");
                wrong.push(at(&file, number, &what));
            }
        }
    }
    nothing(wrong);
}

#[test]
fn a_rooms_sql_requires_lower_floors_only() {
    let mut wrong = Vec::new();
    for room in rooms() {
        let door = root().join(format!("src/{room}/mod.rs"));
        let text = read(&door);
        if !text.contains(&format!("\"../../sql/{room}.sql\"")) {
            wrong.push(format!("{} does not claim sql/{room}.sql", shown(&door)));
        }
        for required in required_files(&text) {
            let lower = required == "bootstrap"
                || matches!((floor(&room), floor(&required)), (Some(here), Some(there)) if there < here);
            if !lower {
                wrong.push(format!(
                    "{}: sql/{room}.sql requires \"{required}\", which is not on a lower floor",
                    shown(&door)
                ));
            }
        }
    }
    nothing(wrong);
}

#[test]
fn the_seam_to_postgresql_is_in_src_pg() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        if module_of(&file).as_deref() == Some("pg") {
            continue;
        }
        let source = Source::read(&file);
        for (number, line) in source.code.lines().enumerate() {
            if has_word(line, "unsafe") {
                wrong.push(at(&file, number, "`unsafe` outside of src/pg"));
            }
            // A #[pg_test] tests the seam, and so may use it.
            if has_word(line, "Spi") && !file.ends_with("tests.rs") {
                wrong.push(at(&file, number, "`Spi` outside of src/pg"));
            }
            // The error type of a door is all that the rest of the house knows of pg_sys.
            if has_word(&line.replace("pg_sys::panic", ""), "pg_sys") {
                wrong.push(at(&file, number, "`pg_sys` outside of src/pg"));
            }
        }
        for (number, line) in read(&file).lines().enumerate() {
            if line.contains("feature = \"pg1") {
                wrong.push(at(&file, number, "a version switch outside of src/pg"));
            }
        }
    }
    nothing(wrong);
}

#[test]
fn every_unsafe_block_says_why_it_is_safe() {
    let mut wrong = Vec::new();
    for file in rust_files("src/pg") {
        let (text, source) = (read(&file), Source::read(&file));
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in source.code.lines().enumerate() {
            let block = ["unsafe {", "unsafe impl"].iter().any(|opens| line.contains(opens));
            if block && !is_justified(&lines, number) {
                wrong.push(at(&file, number, "unsafe without a // SAFETY: line above its statement"));
            }
        }
    }
    nothing(wrong);
}

#[test]
fn plain_modules_know_no_server() {
    let mut wrong = Vec::new();
    for entry in ["src/error.rs", "src/model/mod.rs"] {
        if !read(&root().join(entry)).contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{entry} lacks #![forbid(unsafe_code)]"));
        }
    }
    for file in rust_files("src") {
        let pure = matches!(module_of(&file).as_deref(), Some("error" | "model"));
        let plan = file.ends_with("plan.rs");
        for (number, line) in Source::read(&file).code.lines().enumerate() {
            if pure && has_word(line, "pgrx") {
                wrong.push(at(&file, number, "pgrx below the seam"));
            }
            if plan && has_word(line, "spi") {
                wrong.push(at(&file, number, "a plan decides; store.rs acts"));
            }
        }
    }
    nothing(wrong);
}

#[test]
fn nothing_is_swallowed_left_out_or_put_off() {
    const CODE: &[(&str, &str)] = &[
        ("#[ignore", "a test that is not run proves nothing"),
        ("should_panic", "refusals are tested by SQLSTATE"),
        ("let _ =", "a result is looked at, or not made"),
        (".ok();", "an error is not thrown away"),
        ("assert!(true", "it asserts nothing"),
        ("todo!(", "what is not done is not committed"),
        ("unimplemented!(", "what is not done is not committed"),
        ("dbg!(", "left over"),
    ];
    const COMMENTS: &[&str] = &["TODO", "FIXME", "XXX"];
    let mut wrong = Vec::new();
    for folder in ["src", "pgrx-tests/src", "pgrx-tests/tests"] {
        for file in rust_files(folder) {
            let source = Source::read(&file);
            for (number, line) in source.code.lines().enumerate() {
                for (text, reason) in CODE {
                    if line.contains(text) {
                        wrong.push(at(&file, number, &format!("`{text}`: {reason}")));
                    }
                }
            }
            for (number, line) in source.comments.lines().enumerate() {
                for word in COMMENTS.iter().filter(|word| has_word(line, word)) {
                    wrong.push(at(&file, number, &format!("{word} in a comment; do it or drop it")));
                }
            }
        }
    }
    nothing(wrong);
}

#[test]
fn files_are_of_a_size_to_be_read_and_say_what_they_are_for() {
    let mut wrong = Vec::new();
    for folder in ["src", "pgrx-tests/src", "pgrx-tests/tests"] {
        for file in rust_files(folder) {
            let text = read(&file);
            let lines = text.lines().count();
            let most = if folder == "pgrx-tests/tests" { MOST_LINES_OF_STORIES } else { MOST_LINES };
            if lines > most {
                wrong.push(format!("{}: {lines} lines; split it by duty", shown(&file)));
            }
            if !text.starts_with("//!") {
                wrong.push(format!("{}: does not say what it is for", shown(&file)));
            }
        }
    }
    for room in rooms() {
        let door = root().join(format!("src/{room}/mod.rs"));
        let text = read(&door);
        let duty = format!("//! {}{}: ", room[..1].to_uppercase(), &room[1..]);
        if !text.starts_with(&duty) {
            wrong.push(format!("{}: does not open with \"{duty}...\"", shown(&door)));
        }
        let sql = root().join(format!("sql/{room}.sql"));
        let opening = format!("-- room {room} ");
        if sql.is_file() && !read(&sql).starts_with(&opening) {
            wrong.push(format!("{}: does not open with \"{opening}\"", shown(&sql)));
        }
    }
    nothing(wrong);
}

/// Code of a table's owner is met wherever his table is looked at: see docs/security.md, "Whose code runs".
#[test]
fn users_tables_are_met_at_the_door_and_changed_in_one_place() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let text = read(&file);
        let mut in_door = false;
        for (number, line) in text.lines().enumerate() {
            in_door = line.trim_end().ends_with("mod tenancy {") || in_door && line != "}";
            if in_door && ["given(\"target\"", "given(\"matview\""].iter().any(|given| line.contains(given)) {
                wrong.push(at(
                    &file,
                    number + 1,
                    "a table comes in through pg::on_table, which keeps its owner's code away",
                ));
            }
        }
        let is_place = ["spi.rs", "table_work.rs"].iter().any(|place| file.ends_with(Path::new("src/pg").join(place)));
        for (number, line) in Source::read(&file).code.lines().enumerate() {
            if !is_place && ["SECURITY_NOFORCE_RLS", "with_rights("].iter().any(|word| line.contains(word)) {
                wrong.push(at(
                    &file,
                    number + 1,
                    "rights change in pg::spi, and FORCE is lifted in pg::table_work alone",
                ));
            }
        }
    }
    nothing(wrong);
}

/// What commits has no search_path of its own, and users' code may have run before the next line.
#[test]
fn sql_without_a_search_path_names_everything_in_full() {
    let mut wrong = Vec::new();
    for file in sql_files() {
        for (name, head, body) in routines(&read(&file)) {
            if head.contains("SET search_path") {
                continue;
            }
            for part in unqualified(&body) {
                wrong.push(format!("{}: {name}: {part} is whatever the caller's search_path has", shown(&file)));
            }
        }
    }
    nothing(wrong);
}

#[test]
fn the_check_of_names_knows_operators_types_and_functions() {
    let found = |body: &str| unqualified(body).join(" ");
    assert_eq!(found("IF clock_timestamp() >= stop_at THEN"), "clock_timestamp( >=");
    assert_eq!(found("a text := 'x >= y'; b := c + 1; -- d - e"), "text +");
    assert_eq!(
        found("a pg_catalog.text; EXIT WHEN b OPERATOR(pg_catalog.>=) pg_catalog.now(); PERFORM f.g(h => 1)"),
        ""
    );
    assert_eq!(found("state jsonb; SELECT x::regclass; COALESCE(a, false)"), "jsonb regclass");
}

/// The functions and procedures of a file of SQL: name, what stands before the body, and the body.
fn routines(text: &str) -> Vec<(String, String, String)> {
    let starts = text.match_indices("\nCREATE FUNCTION ").chain(text.match_indices("\nCREATE PROCEDURE "));
    let mut found = Vec::new();
    for (start, _) in starts {
        let rest = &text[start + 1..];
        let Some((head, rest)) = rest.split_once("$$") else { continue };
        // One in C has no body, and the next `$$` is another's.
        if head.contains(";\n") {
            continue;
        }
        let body = rest.split("$$").next().unwrap_or_default();
        let name = head.split(['(', ' ']).nth(2).unwrap_or_default();
        found.push((name.to_owned(), head.to_owned(), body.to_owned()));
    }
    found
}

/// What a body names that a search_path decides on: operators, types that are no words of the grammar, functions.
fn unqualified(body: &str) -> Vec<String> {
    const TYPES: &[&str] = &["text", "timestamptz", "jsonb", "uuid", "regclass", "regrole", "oid", "name", "bytea"];
    const GRAMMAR: &[&str] = &[
        "COALESCE", "NULLIF", "GREATEST", "LEAST", "EXISTS", "FILTER", "IN", "AND", "OR", "NOT", "WHEN", "VALUES", "ON",
    ];
    let mut plain = String::new();
    for line in body.lines() {
        let mut in_text = false;
        for (at, c) in line.char_indices() {
            if !in_text && line[at..].starts_with("--") {
                break;
            }
            in_text ^= c == '\'';
            plain.push(if in_text || c == '\'' { ' ' } else { c });
        }
        plain.push('\n');
    }
    for allowed in [":=", "=>", "ERRCODE =", "DETAIL =", "HINT ="] {
        plain = plain.replace(allowed, "  ");
    }
    while let Some(start) = plain.find("OPERATOR(") {
        let end = plain[start..].find(')').map_or(plain.len(), |end| start + end + 1);
        plain.replace_range(start..end, &" ".repeat(end - start));
    }
    let mut found = Vec::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let mut rest = plain.as_str();
    while let Some(c) = rest.chars().next() {
        let length = if is_word(c) {
            let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
            let is_call = rest[word.len()..].starts_with('(') && !GRAMMAR.contains(&word);
            if !word.contains('.') && is_call && !word.chars().all(|c| c.is_ascii_digit()) {
                found.push(format!("{word}("));
            } else if TYPES.contains(&word) {
                found.push(word.to_owned());
            }
            word.len()
        } else if "<>=+-*/~?|@#".contains(c) {
            let end = rest.find(|c| !"<>=+-*/~?|@#".contains(c)).unwrap_or(rest.len());
            // `SELECT *` and `count(*)`
            if &rest[..end] != "*" {
                found.push(rest[..end].to_owned());
            }
            end
        } else {
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

#[test]
fn the_checks_see_through_comments_and_strings() {
    let source = Source::parse(
        "let a = \"unsafe { \\\" } Spi\"; // unsafe in a comment\nlet b = r#\"TODO \"unsafe\" \"#; /* Spi /* deep */ TODO */\n\
         let c = 'u'; fn f<'a>(x: &'a str) {} // 'quote\nlet d = c\"pg_sys\"; unsafe { g('\"', '\\'') }\n",
    );
    let code: Vec<&str> = source.code.lines().collect();
    assert!(!code[0].contains("unsafe") && !code[0].contains("Spi"));
    assert!(!code[1].contains("TODO") && !code[1].contains("Spi"));
    assert!(code[2].contains("fn f<'a>(x: &'a str) {}"));
    assert!(!code[3].contains("pg_sys") && code[3].contains("unsafe { g("));
    let comments: Vec<&str> = source.comments.lines().collect();
    assert!(comments[0].contains("unsafe in a comment") && comments[1].contains("TODO"));
    assert_eq!(code.len(), 4);
}

#[test]
fn the_checks_know_up_from_down() {
    assert!(may_use("isolation", "registry") && may_use("registry", "pg") && may_use("pg", "model"));
    assert!(may_use("model", "error") && may_use("audit", "audit"));
    assert!(!may_use("registry", "context") && !may_use("pg", "isolation"));
    assert!(!may_use("isolation", "somewhere"));
    let used = |code| crate_paths(code).into_iter().map(|(_, module)| module).collect::<Vec<_>>();
    assert_eq!(used("use crate::pg::{given}; crate::model::Ident::new(x)"), ["pg", "model"]);
    assert_eq!(used("use crate::{\n    error::E,\n    pg::{spi, guc},\n};"), ["error", "pg"]);
    let door = "pgrx::extension_sql_file!(\n \"../../sql/a.sql\",\n requires = [\n \"x\", tenancy::f, \"y\"\n ]\n);";
    assert_eq!(required_files(door), ["x", "y"]);
    let lines = ["// SAFETY: fine,", "// really.", "#[cfg(x)]", "let a = unsafe { f() };", "let b = unsafe { f() };"];
    assert!(is_justified(&lines, 3) && !is_justified(&lines, 4));
}

/// Folders of `src/` from the first room's floor up.
fn rooms() -> BTreeSet<String> {
    modules().into_iter().filter(|module| floor(module).is_none_or(|floor| floor >= FIRST_ROOM_FLOOR)).collect()
}

/// What stands in `src/` beside `lib.rs`.
fn modules() -> BTreeSet<String> {
    entries(&root().join("src"))
        .iter()
        .filter(|path| path.is_dir() || path.extension().is_some_and(|end| end == "rs"))
        .map(|path| stem(path))
        .filter(|name| name != "lib")
        .collect()
}

fn floor(module: &str) -> Option<u8> {
    let floors: BTreeMap<&str, u8> = FLOORS.iter().copied().collect();
    floors.get(module).copied()
}

/// Within itself, and down; the modules of floor 0 are one.
fn may_use(here: &str, there: &str) -> bool {
    here == there
        || matches!((floor(here), floor(there)), (Some(here), Some(there)) if there < here || (here, there) == (0, 0))
}

/// The module of `src/` that a file belongs to; `None` for `lib.rs`, the front door.
fn module_of(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(root().join("src")).expect("a file of src/");
    let first = inside.iter().next().expect("a path").to_string_lossy();
    let module = first.trim_end_matches(".rs");
    (module != "lib").then(|| module.to_owned())
}

/// The modules that the code names by `crate::module` or `crate::{module::..., module}`, each with its line.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let word = |text: &str| -> String {
        let part = |c: &char| c.is_alphanumeric() || *c == '_';
        text.trim_start().chars().take_while(part).collect()
    };
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count();
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            None => found.push((line, word(rest))),
            Some(list) => found.extend(list_items(list).into_iter().map(|item| (line, word(item)))),
        }
    }
    // A macro or a type of the crate's root is no module.
    found.retain(|(_, name)| name.starts_with(|c: char| c.is_lowercase()));
    found
}

/// The items of a list that ends with its closing brace, those within inner braces left together.
fn list_items(list: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth < 0 || (c == ',' && depth == 0) {
            items.push(&list[start..at]);
            start = at + 1;
        }
        if depth < 0 {
            break;
        }
    }
    items
}

/// The SQL files that a door's `requires = [...]` names; the other entries are functions of the door itself.
fn required_files(door: &str) -> Vec<String> {
    let Some((_, list)) = door.split_once("requires") else {
        return Vec::new();
    };
    let list = list.split(']').next().expect("split gives one part");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether the statement that begins at or above line `number` has a SAFETY comment right above it.
fn is_justified(lines: &[&str], number: usize) -> bool {
    for line in lines[..number].iter().rev().map(|line| line.trim()) {
        if line.starts_with("// SAFETY:") {
            return true;
        }
        let ends_another = [";", "{", "}", ","].iter().any(|end| line.ends_with(end));
        if line.is_empty() || (!line.starts_with("//") && !line.starts_with("#[") && ends_another) {
            return false;
        }
    }
    false
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

/// A Rust file taken apart; both halves keep its lines.
struct Source {
    /// Without comments and without what stands in quotes.
    code: String,
    comments: String,
}

impl Source {
    fn read(file: &Path) -> Self {
        Self::parse(&read(file))
    }

    fn parse(text: &str) -> Self {
        let (mut code, mut comments) = (String::new(), String::new());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let (length, part) = if rest.starts_with("//") {
                (rest.find('\n').unwrap_or(rest.len()), Part::Comment)
            } else if rest.starts_with("/*") {
                (block_comment(rest), Part::Comment)
            } else if let Some(length) = raw_string(rest, code.chars().next_back()) {
                (length, Part::Quoted)
            } else if c == '"' {
                (quoted(rest, '"'), Part::Quoted)
            } else if c == '\'' && is_char(rest) {
                (quoted(rest, '\''), Part::Quoted)
            } else {
                (c.len_utf8(), Part::Code)
            };
            let (piece, after) = rest.split_at(length);
            let blank: String = piece.chars().filter(|c| *c == '\n').collect();
            match part {
                Part::Code => {
                    code.push_str(piece);
                    comments.push_str(&blank);
                }
                Part::Comment => {
                    code.push_str(&blank);
                    comments.push_str(piece);
                }
                Part::Quoted => {
                    code.push_str("\"\"");
                    code.push_str(&blank);
                    comments.push_str(&blank);
                }
            }
            rest = after;
        }
        Self { code, comments }
    }
}

enum Part {
    Code,
    Comment,
    Quoted,
}

/// The bytes up to the end of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The bytes of `r"..."`, `r#"..."#`, with `b` or `c` before; `None` for anything else.
fn raw_string(text: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| text.strip_prefix(prefix).is_some_and(|t| t.starts_with(['"', '#'])))?;
    let hashes = text[prefix.len()..].chars().take_while(|c| *c == '#').count();
    let opening = prefix.len() + hashes + 1;
    if !text[prefix.len() + hashes..].starts_with('"') {
        return None;
    }
    let closing = format!("\"{}", "#".repeat(hashes));
    let end = text[opening..].find(&closing)?;
    Some(opening + end + closing.len())
}

/// The bytes up to the closing quote.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `'a'` and `'\n'`, not the lifetime `'a`.
fn is_char(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    matches!((chars.next(), chars.next()), (Some('\\'), _) | (Some(_), Some('\'')))
}

fn sql_files() -> Vec<PathBuf> {
    let below = ["sql", "sql/integrity", "sql/lifecycle"].map(|folder| entries(&root().join(folder)));
    below.concat().into_iter().filter(|path| path.extension().is_some_and(|end| end == "sql")).collect()
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "{folder} has no Rust files");
    files.sort();
    files
}

fn stems(folder: &str, ending: &str) -> BTreeSet<String> {
    entries(&root().join(folder))
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == ending))
        .map(|path| stem(path))
        .collect()
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().expect("a file has a name");
    stem.to_str().expect("our names are text").to_owned()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", shown(folder)));
    list.map(|entry| entry.expect("a readable folder").path()).collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", shown(file)))
}

fn at(file: &Path, line: usize, what: &str) -> String {
    format!("{}:{}: {what}", shown(file), line + 1)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[track_caller]
fn nothing(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
