//! A routing policy of one's own, in Rust: the trait, and a run of it.
//!
//! ```text
//! cargo run --release --example own_policy
//! ```

use std::path::Path;

use tailcast::Arrival;
use tailcast::router::{Decision, Glance, Router, Sight};
use tailcast::scenario::Loaded;
use tailcast::study::Keep;
use tailcast::study::run::{jobs, simulate_with};
use tailcast::workload::OpenLoop;

/// Long prompts go to the last replica, the others where fewest are in flight.
struct LongPromptsApart {
    longer_than: u32,
}

impl Router for LongPromptsApart {
    fn sight(&self) -> Sight {
        // What it reads: its own counts. Whatever is not named here is not paid for.
        Sight { responses: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let last = glance.servers() - 1;
        if arrival.prompt_tokens > self.longer_than {
            return Decision::Send(last);
        }
        let fewest = (0..last.max(1)).min_by_key(|&server| glance.mine(server).in_flight);
        Decision::Send(fewest.unwrap_or(0))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scenario = Loaded::read(Path::new("scenarios/quickstart.toml"), &["repeat=1".into()])?.resolve()?;
    let jobs: std::sync::Arc<[_]> = jobs(&scenario, None, 0)?.into();
    for longer_than in [8_000, 12_000, u32::MAX] {
        let own = |_| -> Box<dyn Router> { Box::new(LongPromptsApart { longer_than }) };
        let mut source = OpenLoop::new(jobs.clone());
        let result = simulate_with(&scenario, &mut source, 0, false, Keep::Nothing, &own)?;
        let e2e = result.summary.e2e_p99_of_offered_ms.unwrap_or(f64::INFINITY);
        let line = format!("prompts above {longer_than} tokens apart: E2E P99 {e2e:.0} ms\n");
        std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    }
    Ok(())
}
