//! Makes `traces/vllm-bench-sample.json`: what `vllm bench serve --save-detailed` would write of a server that is a
//! little slower than the catalogue says. Not a measurement: the factors below are made up, for `tailcast calibrate` to
//! find again.
//!
//! ```sh
//! cargo run --release --example generate_bench
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rand::RngExt;
use serde_json::json;
use tailcast::random::{Purpose, Seed};
use tailcast::scenario::Loaded;
use tailcast::step_time::multipliers::Multipliers;
use tailcast::step_time::roofline::Roofline;
use tailcast::verify::latency::{self, Way};
use tailcast::verify::measured::{MeasuredRequest, MeasuredRun, Meta};
use tailcast::verify::server::Server;

/// Matrix products 10 % slower than the catalogue's, attention of decodes 15 %.
const FACTORS: [f64; 7] = [1.10, 1.15, 1.0, 1.0, 1.0, 1.2, 1.0];
const REQUESTS: u32 = 120;
const RATE_PER_S: f64 = 8.0;

fn main() -> Result<(), Box<dyn Error>> {
    let scenario = Loaded::read(Path::new("scenarios/quickstart.toml"), &[])?.resolve()?;
    let server = Server::of_replica(&scenario.replicas[0]);
    let placement = &server.placement;
    let factors = Multipliers(FACTORS);
    let roofline = Roofline::bind_scaled(placement.gpu, &placement.model, &placement.deployment, &factors)?;
    let server = server.priced(Arc::new(roofline));

    let mut stream = Seed(7).stream(Purpose::Arrivals, 0);
    let mut sent_s = 0.0;
    let requests: Vec<MeasuredRequest> = (0..REQUESTS)
        .map(|index| {
            sent_s += -(1.0 - stream.random::<f64>()).ln() / RATE_PER_S;
            MeasuredRequest {
                id: u64::from(index),
                arrival_s: None,
                client_s: Some(sent_s),
                queued_s: None,
                scheduled_s: None,
                first_token_s: sent_s,
                last_token_s: sent_s,
                prompt_tokens: stream.random_range(50..3_000),
                output_tokens: stream.random_range(10..160),
                block_ids: Vec::new(),
                rank: None,
            }
        })
        .collect();
    let run = MeasuredRun {
        name: "sample".into(),
        file: "sample".into(),
        meta_file: "sample".into(),
        meta: Meta::default(),
        requests,
    };
    let waits = latency::waits(&run, &server, Way::LOCAL);
    let (mut ttfts, mut itls) = (Vec::new(), Vec::new());
    let rounded = |seconds: f64| (seconds * 1e5).round() / 1e5;
    for (request, waits) in run.requests.iter().zip(waits) {
        let (_, simulated) = waits.ok_or("a request has no answer")?;
        let mut scatter = |share: f64| 1.0 + share * (2.0 * stream.random::<f64>() - 1.0);
        ttfts.push(rounded(simulated.ttft.as_s() * scatter(0.05)));
        let gap_s = simulated.tpot.ok_or("an answer has one token")?.as_s() * scatter(0.02);
        let gaps = request.output_tokens - 1;
        itls.push((0..gaps).map(|_| rounded(gap_s * scatter(0.1))).collect::<Vec<f64>>());
    }
    let of = |of: &dyn Fn(&MeasuredRequest) -> u32| run.requests.iter().map(of).collect::<Vec<u32>>();
    let starts: Vec<f64> = run.requests.iter().map(|request| rounded(1_000.0 + request.sent_s())).collect();
    let result = json!({
        "backend": "vllm",
        "model_id": placement.model.hf_id,
        "num_prompts": REQUESTS,
        "request_rate": RATE_PER_S,
        "completed": REQUESTS,
        "input_lens": of(&|request| request.prompt_tokens),
        "output_lens": of(&|request| request.output_tokens),
        "start_times": starts,
        "ttfts": ttfts,
        "itls": itls,
        "errors": vec![""; REQUESTS as usize],
    });
    std::fs::write("traces/vllm-bench-sample.json", result.to_string() + "\n")?;
    Ok(())
}
