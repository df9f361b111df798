//! Side-by-side benchmarks: the sides of a contest in interleaved rounds, as ratios to the floor.
//! A ratio within one run holds on another machine; a millisecond does not.
//!
//! What the figures mean and how to read them: `pgrx-tests/bench/README.md`.

mod audit;
mod contests;
mod facts;
mod fence;
mod ground;
mod integrity;
mod lifecycle;
mod sides;
mod stand;
mod statement;
mod table;
mod tokens;
mod valgrind;

use std::{fs, time::Instant};

use anyhow::{Context, Result, bail};

use self::{
    contests::{Contest, Entry, Runner},
    facts::Fact,
    stand::Stand,
    table::Sample,
};
use crate::{progress::say, server::Choice, workspace};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only what has this in its name; `--list` shows the names
    pub filter: Option<String>,
    /// Shows what there is to measure
    #[arg(long)]
    pub list: bool,
    /// Rounds of each side
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Counts the server's instructions under valgrind instead of measuring time; repeatable to 1 %
    #[arg(long)]
    pub instructions: bool,
    /// Leaves out what people use today: the floor and ours
    #[arg(long)]
    pub quick: bool,
    /// 100,000 or 2,000,000 orders a side, a purge out of 1,000,000 or 10,000,000 rows; small is the default with
    /// --instructions, and for the purge
    #[arg(long)]
    pub scale: Option<Scale>,
}

/// How much data each side has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scale {
    Small,
    Full,
}

impl Scale {
    /// Orders; a hundredth of them is each tenant's.
    fn rows(self) -> u64 {
        match self {
            Scale::Small => 100_000,
            Scale::Full => 2_000_000,
        }
    }

    /// Rows of the tables whose size matters less.
    fn others(self) -> u64 {
        match self {
            Scale::Small => 50_000,
            Scale::Full => 200_000,
        }
    }

    /// Rows of the tables from which a tenant is purged; a tenth of them is the tenant's.
    fn purged(self) -> u64 {
        match self {
            Scale::Small => 1_000_000,
            Scale::Full => 10_000_000,
        }
    }

    /// Tenants that have rows.
    fn active(self) -> u64 {
        100
    }

    /// Room for all data, so that no side waits for what another has pushed out.
    fn shared_buffers(self) -> &'static str {
        match self {
            Scale::Small => "256MB",
            Scale::Full => "2GB",
        }
    }
}

/// `cargo xtask bench`
pub fn run(choice: &Choice, options: &Options) -> Result<()> {
    let wanted = |name: &str| name.contains(options.filter.as_deref().unwrap_or(""));
    let contests: Vec<Contest> =
        contests::all(options.instructions).into_iter().filter(|contest| wanted(contest.name)).collect();
    // Facts are no instructions; those that are asked for by name are told with them all the same.
    let facts: Vec<Fact> = facts::all()
        .into_iter()
        .filter(|fact| wanted(fact.name) && (!options.instructions || options.filter.is_some()))
        .collect();
    if options.list {
        contests.iter().for_each(|contest| println!("{:<22} {}", contest.name, contest.what));
        facts.iter().for_each(|fact| println!("{:<22} {}", fact.name, fact.what));
        return Ok(());
    }
    if contests.is_empty() && facts.is_empty() {
        bail!("nothing has \"{}\" in its name; see --list", options.filter.as_deref().unwrap_or(""));
    }

    let _lock = workspace::lock_servers()?;
    let usual = if options.instructions { Scale::Small } else { Scale::Full };
    // Ten million rows, and two copies of them a round, only for who asks.
    let purged = options.scale.unwrap_or(Scale::Small).purged();
    let mut stand = Stand::build(choice, options.scale.unwrap_or(usual), purged)?;
    let mut missed = Vec::new();
    for fact in &facts {
        say(fact.name);
        println!("\n{}: {}", fact.name, fact.what);
        if !(fact.tell)(&stand, options.rounds).with_context(|| fact.name)? {
            missed.push(fact.name);
        }
    }
    if options.instructions {
        stand.count_instructions()?;
    }
    for mut contest in contests {
        if options.quick {
            let mut position = 0;
            contest.entries.retain(|entry| {
                position += 1;
                position == 1 || entry.is_ours
            });
        }
        let contest = &contest;
        let kept = if options.instructions {
            table::instructions(contest, &count(&stand, contest)?)
        } else {
            table::time(contest, &measure(&stand, contest, options.rounds)?)
        };
        if !kept {
            missed.push(contest.name);
        }
    }
    if !missed.is_empty() {
        println!("\nmissed: {}", missed.join(", "));
    }
    Ok(())
}

/// The instructions of one execution, for each side.
fn count(stand: &Stand, contest: &Contest) -> Result<Vec<f64>> {
    say(format_args!("{}: counting", contest.name));
    contest
        .entries
        .iter()
        .map(|entry| {
            // What a session does besides cancels out.
            let once = session(stand, contest, entry, contest.count)?;
            let twice = session(stand, contest, entry, 2 * contest.count)?;
            Ok((twice as f64 - once as f64) / contest.count as f64)
        })
        .collect()
}

/// The instructions of a whole session.
fn session(stand: &Stand, contest: &Contest, entry: &Entry, times: u64) -> Result<u64> {
    let mut runner = begin(stand, contest, entry)?;
    let pid = runner.pid;
    runner.run(times)?;
    runner.end()?;
    stand.instructions(pid)
}

fn begin(stand: &Stand, contest: &Contest, entry: &Entry) -> Result<Runner> {
    let context = || format!("{}: {}", contest.name, entry.label);
    let mut runner = (entry.start)(stand).with_context(context)?;
    runner.run(contest.warmup).with_context(context)?;
    Ok(runner)
}

/// How long the floor is to work in a round, in nanoseconds on a CPU.
const ROUND: u64 = 150_000_000;

/// The time of one execution on a CPU, one figure a round, for each side.
fn measure(stand: &Stand, contest: &Contest, rounds: u64) -> Result<Vec<Sample>> {
    let mut runners = contest.entries.iter().map(|entry| begin(stand, contest, entry)).collect::<Result<Vec<_>>>()?;
    let times = calibrate(&mut runners)?;
    say(format_args!("{}: {rounds} rounds of {times} executions", contest.name));
    let mut samples = vec![Sample::default(); runners.len()];
    for round in 0..rounds as usize {
        // Another one begins each time: none always follows the same one.
        for turn in 0..runners.len() {
            let side = (round + turn) % runners.len();
            samples[side].push(spend(&mut runners[side], times)? as f64 / times as f64);
        }
    }
    for runner in runners {
        runner.end()?;
    }
    Ok(samples)
}

/// How often each side does its work in a round: as often as the floor can, unless another side took too long with it.
fn calibrate(runners: &mut [Runner]) -> Result<u64> {
    let mut times = 1;
    let floor = loop {
        let begun = Instant::now();
        let spent = spend(&mut runners[0], times)?;
        if spent >= ROUND / 4 || begun.elapsed().as_secs() >= 2 {
            break spent as f64 / times as f64;
        }
        times *= 4;
    };
    let mut slowest = floor;
    for runner in &mut runners[1..] {
        let sample = times.div_ceil(20);
        slowest = slowest.max(spend(runner, sample)? as f64 / sample as f64);
    }
    let (round, patience) = (ROUND as f64, 4.0);
    Ok((round / floor).min(patience * round / slowest).ceil() as u64)
}

/// Time on a CPU that it takes to do the work so often.
fn spend(runner: &mut Runner, times: u64) -> Result<u64> {
    let before = on_cpu(runner.pid)?;
    runner.run(times)?;
    Ok((on_cpu(runner.pid)? - before).max(1))
}

/// Nanoseconds that a process has been on a CPU.
fn on_cpu(pid: i32) -> Result<u64> {
    Ok(schedule(pid)?[0])
}

/// Nanoseconds that a process has been on a CPU, and that it has waited for one.
fn schedule(pid: i32) -> Result<[u64; 2]> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{path} (time is measured on Linux only; --instructions is not)"))?;
    let mut numbers = text.split(' ').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(on_cpu)), Some(Ok(waited))) => Ok([on_cpu, waited]),
        _ => bail!("{path} says \"{text}\""),
    }
}
