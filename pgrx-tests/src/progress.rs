//! What the task runner says while it works: one line per step, with the time it took.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use anyhow::Result;

/// A line on stderr; stdout belongs to what was asked for.
pub fn say(line: impl std::fmt::Display) {
    eprintln!("{} {line}", paint("36", "==>"));
}

/// Announces a step, does it, and says how long it took when that was long enough to wonder.
pub fn step<T>(what: impl std::fmt::Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&what);
    let begun = Instant::now();
    let done = work()?;
    if begun.elapsed() > Duration::from_secs(1) {
        say(format_args!("{what}: done in {}", time(begun.elapsed())));
    }
    Ok(done)
}

pub fn time(spent: Duration) -> String {
    match spent.as_secs() {
        0..60 => format!("{:.1} s", spent.as_secs_f64()),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

/// `text` in an ANSI style where a person looks at it; both streams, because a redirected one must stay plain.
pub fn paint(style: &str, text: &str) -> String {
    let watched = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    if watched && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{style}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
