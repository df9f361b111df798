//! What a signed token costs on top of a tenant that is set without one.

use anyhow::{Context, Result};
use postgres::{Client, Statement};

use super::{on_cpu, stand::Stand, table::Sample};

/// Calls of one statement: the statement itself counts for nothing.
const CALLS: u64 = 500;

struct Side {
    label: &'static str,
    /// The key that signs the token; none for the floor, which takes the tenant itself.
    kid: Option<&'static str>,
    function: &'static str,
    /// The microseconds that the token may cost.
    limit: Option<f64>,
}

const SIDES: [Side; 5] = [
    Side { label: "set_tenant, no token", kid: None, function: "tenancy.set_tenant", limit: None },
    Side { label: "HS256", kid: Some("hs256"), function: "tenancy.set_tenant_signed", limit: Some(10.0) },
    Side { label: "EdDSA", kid: Some("eddsa"), function: "tenancy.set_tenant_signed", limit: Some(120.0) },
    Side { label: "ES256", kid: Some("es256"), function: "tenancy.set_tenant_signed", limit: None },
    Side {
        label: "HS256 in PL/pgSQL with pgcrypto",
        kid: Some("hs256"),
        function: "custom.set_tenant_signed",
        limit: None,
    },
];

struct Runner {
    client: Client,
    pid: i32,
    statement: Statement,
    argument: String,
}

/// Prints it; whether the limits are kept.
pub fn tell(stand: &Stand, rounds: u64) -> Result<bool> {
    stand.script("tokens.sql", "")?;
    let mut admin = stand.superuser()?;
    let tenant = stand.tenants[0].to_string();
    let mut runners = Vec::new();
    for side in &SIDES {
        let mut client = stand.app(None)?;
        let argument = match side.kid {
            None => tenant.clone(),
            Some(kid) => {
                let sign = "SELECT tenancy.sign_tenant_token($1, '1 hour', $2)";
                admin.query_one(sign, &[&tenant, &kid]).context(side.label)?.get(0)
            }
        };
        let sql = format!("SELECT count({}($1)) FROM generate_series(1, {CALLS})", side.function);
        let statement = client.prepare(&sql)?;
        let pid = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        runners.push(Runner { client, pid, statement, argument });
    }
    let mut samples = vec![Sample::default(); SIDES.len()];
    for round in 0..=rounds as usize {
        for turn in 0..SIDES.len() {
            let place = (round + turn) % SIDES.len();
            let Runner { client, pid, statement, argument } = &mut runners[place];
            let before = on_cpu(*pid)?;
            client.query_one(&*statement, &[argument]).context(SIDES[place].label)?;
            // The first round fills caches.
            if round > 0 {
                samples[place].push((on_cpu(*pid)? - before) as f64 / CALLS as f64 / 1000.0);
            }
        }
    }
    println!("  {:<44} {:>14} {:>14}  {:<16}", "", "us on CPU", "for the token", "quartiles");
    let floor = samples[0].median();
    let mut kept = true;
    for (side, sample) in SIDES.iter().zip(&samples) {
        let extra = sample.median() - floor;
        let verdict = side.limit.map(|limit| {
            kept &= extra <= limit;
            format!("<= {limit} {}", if extra <= limit { "pass" } else { "MISS" })
        });
        println!(
            "  {:<44} {:>14.2} {extra:>14.2}  {:<16} {}",
            side.label,
            sample.median(),
            format!("{:.2} .. {:.2}", sample.quantile(0.25) - floor, sample.quantile(0.75) - floor),
            verdict.unwrap_or_default()
        );
    }
    Ok(kept)
}
