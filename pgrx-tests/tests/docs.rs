//! What README.md and docs/ say is so: their SQL runs in order, one fresh database per page; a refusal announced by
//! `-- refused 42501` comes; and a ```text block shows what psql prints for the ```sql block before it.

use std::{collections::BTreeSet, fs, path::PathBuf};

use pg_tenancy_tests::{Cluster, Db, cluster::data, quote_ident, tasks::narrate, workspace};

/// A page and its fenced blocks: `sql` to run, `text` to be printed.
struct Page {
    name: String,
    blocks: Vec<Block>,
    needs_fence: bool,
}

/// How a page begins that is about a server with the library in shared_preload_libraries.
const NEEDS_FENCE: &str = "<!-- shared_preload_libraries -->";

struct Block {
    line: usize,
    language: String,
    text: String,
}

impl Page {
    fn read(path: &PathBuf) -> Self {
        let text = fs::read_to_string(path).expect("a page is text");
        let mut blocks: Vec<Block> = Vec::new();
        let mut is_open = false;
        for (line, number) in text.lines().zip(1..) {
            match line.strip_prefix("```") {
                Some(_) if is_open => is_open = false,
                Some(language) => {
                    is_open = true;
                    blocks.push(Block { line: number, language: language.to_owned(), text: String::new() });
                }
                None if is_open => {
                    let block = blocks.last_mut().expect("a block is open");
                    block.text.push_str(line.trim_end());
                    block.text.push('\n');
                }
                None => {}
            }
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        assert!(!is_open, "{name} ends inside a block");
        Self { name, blocks, needs_fence: text.starts_with(NEEDS_FENCE) }
    }

    /// One script for the page. A comment before each block tells its place in the output.
    fn script(&self) -> String {
        let sql = self.blocks.iter().filter(|block| block.language == "sql");
        sql.map(|block| format!("{}\n{}", mark(block), block.text)).collect()
    }

    /// What the page says is printed, and is not.
    fn untrue(&self, output: &str) -> Vec<String> {
        let mut untrue = Vec::new();
        let mut printed = None;
        for block in &self.blocks {
            match block.language.as_str() {
                "sql" => {
                    let mark = mark(block);
                    let shown = mark.trim_start_matches("-- ");
                    let after = output.split_once(shown).map(|(_, after)| after);
                    printed = after.map(|after| after.split("[block at line ").next().unwrap_or(after));
                }
                "text" if !printed.is_some_and(|printed| printed.contains(block.text.trim_end())) => {
                    let printed = printed.unwrap_or("(no ```sql block before it)");
                    untrue.push(format!("{}:{}: psql printed\n{printed}", self.name, block.line));
                }
                _ => {}
            }
        }
        untrue
    }
}

fn mark(block: &Block) -> String {
    format!("-- [block at line {}]", block.line)
}

/// README.md, then the guide.
fn pages() -> Vec<Page> {
    let root = workspace::root();
    let guide = fs::read_dir(root.join("docs")).expect("there is a guide");
    let mut paths: Vec<PathBuf> = guide.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    paths.sort();
    paths.insert(0, root.join("README.md"));
    paths.iter().map(Page::read).collect()
}

/// psql's verbose errors carry the SQLSTATE, which the pages give beside the statement.
fn without_sqlstate(line: &str) -> String {
    for label in ["ERROR:  ", "WARNING:  ", "NOTICE:  "] {
        if let Some((_, message)) = line.strip_prefix(label).and_then(|rest| rest.split_once(": ")) {
            return format!("{label}{message}");
        }
    }
    line.trim_end().to_owned()
}

#[test]
fn each_page_runs_as_it_is_written() {
    // Servers of their own: the pages make roles of plain names, as a reader would.
    let plain = Cluster::start(&[]);
    let fenced = Cluster::start(&[data::PRELOADED]);
    let folder = workspace::target().join("pgrx-tests/docs");
    fs::create_dir_all(&folder).expect("target/ is ours");
    let mut untrue = Vec::new();
    for page in pages() {
        let cluster = if page.needs_fence { &fenced } else { &plain };
        let superuser = cluster.superuser();
        superuser.run("CREATE DATABASE guide");
        let script = folder.join(format!("{}.sql", page.name));
        fs::write(&script, page.script()).expect("the script can be written");
        let mut psql = narrate::psql(cluster.server()).expect("PATH can be joined");
        psql.envs(cluster.libpq_environment()).env("PGDATABASE", "guide");
        let mut output = Vec::new();
        untrue.extend(narrate::play(&mut psql, &script, &mut output).expect("psql plays it"));
        let output: Vec<String> = String::from_utf8_lossy(&output).lines().map(without_sqlstate).collect();
        untrue.extend(page.untrue(&output.join("\n")));
        superuser.run("DROP DATABASE guide WITH (FORCE)");
        let left = superuser.rows("SELECT rolname FROM pg_roles WHERE oid >= 16384");
        left.iter().for_each(|role| superuser.run(&format!("DROP ROLE {}", quote_ident(role))));
    }
    assert!(untrue.is_empty(), "the pages are not as they say:\n{}", untrue.join("\n"));
}

#[test]
fn the_readme_names_each_function_and_no_other() {
    let admin = Db::new().admin();
    let sql = "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'tenancy'::regnamespace";
    let existing: BTreeSet<String> = admin.rows(sql).into_iter().collect();
    let readme = fs::read_to_string(workspace::root().join("README.md")).expect("there is a README");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('('));
    let named: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(named, existing, "left: the README's table; right: what there is");
}

#[test]
fn the_pages_name_only_functions_that_there_are() {
    let admin = Db::new().admin();
    let sql = "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'tenancy'::regnamespace";
    let existing: BTreeSet<String> = admin.rows(sql).into_iter().collect();
    let root = workspace::root();
    let guide = fs::read_dir(root.join("docs")).expect("there is a guide");
    let paths = guide.map(|entry| entry.expect("an entry").path()).chain([root.join("README.md")]);
    for path in paths {
        let text = fs::read_to_string(&path).expect("a page is text");
        for (at, _) in text.match_indices("tenancy.") {
            let rest = &text[at + "tenancy.".len()..];
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if rest[name.len()..].starts_with('(') {
                assert!(existing.contains(&name), "{}: there is no function tenancy.{name}", path.display());
            }
        }
    }
}
