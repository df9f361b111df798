//! Where the suite comes from: Debian's source package, fetched through apt settings of our own, once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    packages,
    process::{self, find_program},
    progress::step,
    server::Server,
    workspace,
};

/// The releases of Debian that have a major's source package.
const RELEASES: &[(u32, &str)] = &[(13, "bullseye"), (15, "bookworm"), (17, "trixie"), (18, "forky")];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR: &str = "http://deb.debian.org/debian";

/// `src/test/regress` of PostgreSQL's source.
#[derive(Debug)]
pub struct Suite {
    pub folder: PathBuf,
    /// As the source package has it; tests and server may differ in the minor, on both sides of the comparison alike.
    pub version: String,
}

/// The suite for a major: of that source tree, or fetched.
pub fn suite(major: u32, tree: Option<&Path>) -> Result<Suite> {
    if let Some(tree) = tree {
        let folder = tree.join("src/test/regress");
        if !folder.join("parallel_schedule").is_file() {
            bail!("{} is no source tree of PostgreSQL", tree.display());
        }
        let folder = folder.canonicalize()?;
        return Ok(Suite { folder, version: tree.display().to_string() });
    }
    let place = workspace::state()?.join(format!("core/source-{major}"));
    // Written last, so that an interrupted download is made again.
    let stamp = place.join("version");
    if !stamp.is_file() {
        let version = step(format_args!("fetching the source of PostgreSQL {major}"), || fetch(major, &place))
            .with_context(|| {
                format!(
                    "PostgreSQL {major}'s own suite cannot be had here; a source tree of that major does as well: --source DIR"
                )
            })?;
        fs::write(&stamp, version)?;
    }
    Ok(Suite { folder: place.join("regress"), version: fs::read_to_string(&stamp)? })
}

/// Leaves the suite in `place/regress`; gives the version.
fn fetch(major: u32, place: &Path) -> Result<String> {
    let Some((_, release)) = RELEASES.iter().find(|(known, _)| *known == major) else {
        bail!("no release of Debian has the source of PostgreSQL {major}");
    };
    if find_program("apt-get").is_none() || !Path::new(KEYRING).is_file() {
        bail!("this system has no apt-get with Debian's keys ({KEYRING})");
    }
    packages::ensure(&["bzip2"], "unpack PostgreSQL's source")?;
    workspace::remove(place)?;
    let apt = place.join("apt");
    for folder in ["lists/partial", "cache/archives/partial", "parts"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    fs::write(apt.join("sources"), format!("deb-src [signed-by={KEYRING}] {} {release} main\n", mirror()))?;
    fs::write(apt.join("conf"), settings(&apt))?;
    let run = |program: &str, arguments: &[&str]| {
        process::output(Command::new(program).arg("-c").arg(apt.join("conf")).args(arguments).current_dir(&apt))
    };
    run("apt-get", &["update", "--quiet"])?;
    let package = format!("postgresql-{major}");
    run("apt-get", &["source", "--quiet", "--download-only", &package])?;
    let (archive, version) = downloaded(&apt, &package)?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(place);
    tar.args(["--no-same-owner", "--strip-components=3", "--wildcards", "*/src/test/regress/*"]);
    process::output(&mut tar)?;
    workspace::remove(&apt)?;
    Ok(version)
}

/// `postgresql-15_15.18.orig.tar.bz2` -> its path and `15.18`.
fn downloaded(folder: &Path, package: &str) -> Result<(PathBuf, String)> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some((version, _)) = name.strip_prefix(package).and_then(|rest| rest[1..].split_once(".orig.tar")) {
            return Ok((path.clone(), version.to_owned()));
        }
    }
    bail!("apt-get source {package} left no archive in {}", folder.display())
}

/// apt with lists and cache of its own: the system's sources stay as they are.
fn settings(apt: &Path) -> String {
    let place = |part: &str| apt.join(part).display().to_string();
    [
        ("Dir::State", place("")),
        ("Dir::State::Lists", place("lists")),
        ("Dir::State::status", "/var/lib/dpkg/status".to_owned()),
        ("Dir::Cache", place("cache")),
        ("Dir::Etc::sourcelist", place("sources")),
        ("Dir::Etc::sourceparts", place("parts")),
        ("Dir::Etc::preferencesparts", place("parts")),
        // _apt could not write into our folder.
        ("APT::Sandbox::User", "".to_owned()),
    ]
    .map(|(name, value)| format!("{name} \"{value}\";\n"))
    .concat()
}

/// The mirror that this system uses, or Debian's own.
fn mirror() -> String {
    let sources = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let first = sources.lines().find_map(|line| line.strip_prefix("URIs:")?.split_whitespace().next());
    first.unwrap_or(MIRROR).to_owned()
}

/// The folder with the libraries that the suite's SQL loads.
#[derive(Debug)]
pub struct Modules {
    pub folder: PathBuf,
}

/// Builds `regress.so` and puts the two contrib modules beside it.
pub fn modules(server: &Server, suite: &Suite) -> Result<Modules> {
    let folder = workspace::state()?.join(format!("core/modules-{}", server.major));
    let ask = |option: &str| process::output(Command::new(&server.pg_config).arg(option));
    fs::create_dir_all(&folder)?;
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-O1", "-w"]).arg(format!("-I{}", ask("--includedir-server")?));
    gcc.arg("-o").arg(folder.join("regress.so")).arg(suite.folder.join("regress.c"));
    process::output(&mut gcc).context("regress.so, which the suite loads, cannot be built")?;
    for module in ["refint.so", "autoinc.so"] {
        let contrib = server.pkglibdir.join(module);
        if contrib.is_file() {
            fs::copy(&contrib, folder.join(module))?;
        }
    }
    Ok(Modules { folder })
}
