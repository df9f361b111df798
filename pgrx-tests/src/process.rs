//! Other programs: run with an error that names them, as the server's system user where needed, and ended with us.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Runs it with our own output; an error names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs it silently and returns its stdout without the last line end; an error carries what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!(
            "{} failed ({status})\n{}{}",
            shown(command),
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        );
    }
    Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned())
}

/// Runs cargo-pgrx and lets through what cargo says. Its own lines, a dozen each time, are shown when it fails; it
/// colours them even into a pipe, which cargo does not, and so they are told apart.
pub fn run_pgrx(command: &mut Command) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    // The command itself still holds the pipe's writing end; reading would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut kept = String::new();
    for line in BufReader::new(reader).lines() {
        let line = line?;
        if line.contains("\x1b[") {
            kept.push_str(&line);
            kept.push('\n');
        } else {
            eprintln!("{line}");
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed ({status})\n{kept}", shown(command));
    }
    Ok(())
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let quote = |word: &OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect::<Vec<_>>().join(" ")
}

/// The first program of that name in PATH, or in the folders where Debian keeps programs for administrators.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A system user that we, being root, may become.
#[derive(Debug, Clone)]
pub struct SystemUser {
    pub name: String,
    uid: u32,
    gid: u32,
}

impl SystemUser {
    /// Makes `command` run as this user. std also drops root's supplementary groups.
    pub fn take_over(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid).env("USER", &self.name).env("LOGNAME", &self.name).env("HOME", "/");
    }

    pub fn give(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to {}", path.display(), self.name))
    }
}

/// Who runs servers. PostgreSQL refuses to run as root, so root becomes `postgres`; everybody else stays himself (`None`).
pub fn server_user() -> Result<Option<&'static SystemUser>> {
    static USER: OnceLock<Option<SystemUser>> = OnceLock::new();
    if let Some(known) = USER.get() {
        return Ok(known.as_ref());
    }
    let found = if is_root() { Some(system_user("postgres")?) } else { None };
    Ok(USER.get_or_init(|| found).as_ref())
}

fn system_user(name: &str) -> Result<SystemUser> {
    let id = |option: &str| -> Result<u32> {
        let answer = output(Command::new("id").arg(option).arg(name)).with_context(|| {
            format!(
                "root cannot run a PostgreSQL server and there is no system user \"{name}\" to do it; \
                 apt-get install postgresql-common makes one"
            )
        })?;
        Ok(answer.parse()?)
    };
    Ok(SystemUser { name: name.to_owned(), uid: id("-u")?, gid: id("-g")? })
}

/// A command that the server's system user runs, from a folder he can enter.
pub fn as_server_user(program: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some(user) = server_user()? {
        user.take_over(&mut command);
    }
    Ok(command)
}

/// A child that does not outlive us, however we end: a shell beside it reads a pipe of which we hold the other end, and
/// ends the child when the pipe closes. (PR_SET_PDEATHSIG does not do: the change of user clears it, and it follows the
/// thread that spawned, not the process.)
#[derive(Debug)]
pub struct Guarded {
    shell: Child,
    pipe: Option<ChildStdin>,
}

/// $1 is the signal for the case that we die; the rest is the command. Job control is off, so a background child ignores
/// SIGINT until it installs its own handler, as PostgreSQL and PgBouncer do.
const GUARD: &str = r#"
last=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
{ read -r signal || signal=$last; kill -s "$signal" "$child"; } <&3 2>/dev/null &
watcher=$!
exec 3<&-
wait "$child"; status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;

impl Guarded {
    /// Starts `command` (program, arguments and user; its stdio is replaced), writing to `log`.
    pub fn start(command: &Command, last_signal: &str, log: &Path) -> Result<Self> {
        let log_file =
            fs::File::options().create(true).append(true).open(log).with_context(|| format!("{}", log.display()))?;
        let mut shell = as_server_user("/bin/sh")?;
        shell.arg("-c").arg(GUARD).arg("guard").arg(last_signal).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("cannot run {}", shown(command)))?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// Its exit status when it has ended by itself.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.shell.try_wait()?)
    }

    /// Sends the signal and waits for the end.
    pub fn stop(&mut self, signal: &str) -> Result<()> {
        if let Some(mut pipe) = self.pipe.take() {
            // A child that is gone already has closed the pipe; that is what we want.
            if let Err(error) = writeln!(pipe, "{signal}")
                && error.kind() != std::io::ErrorKind::BrokenPipe
            {
                return Err(error.into());
            }
        }
        self.shell.wait()?;
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Closing the pipe is the order to end; waiting keeps the files in place until the child let go of them.
        self.pipe = None;
        if let Err(error) = self.shell.wait() {
            eprintln!("cannot wait for a server to end: {error}");
        }
    }
}

/// Asks until the answer is there. `ask` returns `None` for "not yet" and an error for "never".
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begun.elapsed() > limit {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
