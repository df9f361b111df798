//! What is printed: both sides of each ratio, the limit, and whether it is kept.

use super::contests::Contest;

/// One figure a round.
#[derive(Debug, Clone, Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// By linear interpolation; there is at least one figure.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = q * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        low + (high - low) * at.fract()
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Round by round against another: what slows the machine for a while slows both.
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect())
    }
}

/// Prints counted instructions; whether the limit is kept.
pub fn instructions(contest: &Contest, counts: &[f64]) -> bool {
    println!("\n{}: {}", contest.name, contest.what);
    println!("  {:<44} {:>14} {:>8}", "", "instructions", "ratio");
    let mut kept = true;
    for (entry, count) in contest.entries.iter().zip(counts) {
        let ratio = count / counts[0];
        let limit = contest.limit.filter(|_| entry.is_ours);
        let verdict = limit.map(|limit| verdict(limit, ratio <= limit)).unwrap_or_default();
        println!("  {:<44} {:>14} {ratio:>8.3} {verdict}", entry.label, grouped(*count));
        kept &= limit.is_none_or(|limit| ratio <= limit);
    }
    kept & apart(contest, counts)
}

/// Prints how much less we add to the floor than others do; whether it is enough.
fn apart(contest: &Contest, figures: &[f64]) -> bool {
    let Some(limit) = contest.apart else { return true };
    let added = |at: usize| figures[at] - figures[0];
    let Some(ours) = contest.entries.iter().position(|entry| entry.is_ours) else { return true };
    let mut kept = true;
    let others = contest.entries.iter().enumerate().filter(|(_, entry)| entry.label.starts_with("plpgsql"));
    for (place, (at, entry)) in others.enumerate() {
        // What we add may drown in noise; a hundredth of the floor is the least that is told apart.
        let times = added(at) / added(ours).max(figures[0] / 100.0);
        let verdict = match place {
            0 if times >= limit => format!(">= {limit:.0} pass"),
            0 => format!(">= {limit:.0} MISS"),
            _ => String::new(),
        };
        kept &= place > 0 || times >= limit;
        println!("  added, {times:.1} times less than {} {verdict}", entry.label);
    }
    kept
}

/// Prints measured time; whether the limit is kept. The ratio is that of the medians, the spread that of the rounds.
pub fn time(contest: &Contest, samples: &[Sample]) -> bool {
    println!("\n{}: {}", contest.name, contest.what);
    println!("  {:<44} {:>14} {:>8}  {:<16}", "", "us on CPU", "ratio", "quartiles");
    let mut kept = true;
    // How far the floor strays from itself.
    let noise = (samples[0].quantile(0.75) - samples[0].quantile(0.25)) / samples[0].median();
    for (entry, sample) in contest.entries.iter().zip(samples) {
        let ratio = sample.median() / samples[0].median();
        let rounds = sample.over(&samples[0]);
        let (low, high) = (rounds.quantile(0.25), rounds.quantile(0.75));
        // Noise is no miss: the limit must lie below the spread by more than the floor's own.
        let limit = contest.limit.filter(|_| entry.is_ours);
        let misses = limit.is_some_and(|limit| ratio > limit && low > limit + noise);
        let verdict = match limit {
            Some(limit) if ratio > limit && !misses => format!("<= {limit:.2} unclear: count --instructions"),
            Some(limit) => verdict(limit, !misses),
            None => String::new(),
        };
        println!(
            "  {:<44} {:>14.2} {ratio:>8.3}  {:<16} {verdict}",
            entry.label,
            sample.median() / 1000.0,
            format!("{low:.3} .. {high:.3}")
        );
        kept &= !misses;
    }
    kept & apart(contest, &samples.iter().map(Sample::median).collect::<Vec<_>>())
}

fn verdict(limit: f64, kept: bool) -> String {
    format!("<= {limit:.2} {}", if kept { "pass" } else { "MISS" })
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::from(if number < -0.5 { "-" } else { "" });
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Sample, grouped};

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(Sample(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Sample(vec![1.0, 2.0]).quantile(0.25), 1.25);
        assert_eq!(Sample(vec![5.0]).quantile(0.75), 5.0);
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let (ours, floor) = (Sample(vec![2.0, 30.0]), Sample(vec![1.0, 10.0]));
        assert_eq!(ours.over(&floor).0, [2.0, 3.0]);
    }

    #[test]
    fn thousands_are_parted() {
        assert_eq!(grouped(1234567.4), "1,234,567");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(-1000.0), "-1,000");
    }
}
