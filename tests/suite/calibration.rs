//! Calibrations: factors that were put in are found again, and what is wrong is said.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tailcast::calibration::evidence::Evidence;
use tailcast::calibration::{Findings, Subject, bench, name, step_log};
use tailcast::scenario::Loaded;
use tailcast::step_time::multipliers::Multipliers;
use tailcast::step_time::roofline::Roofline;
use tailcast::step_time::{Batch, Chunk, Decodes};
use tailcast::verify::latency::{self, Way};
use tailcast::verify::server::Server;
use tempfile::TempDir;

const SCENARIO: &str = r#"
[workload]
requests = 10
arrivals = { rate_per_s = 1 }
prompt_tokens = { distribution = "fixed", tokens = 500 }
output_tokens = { distribution = "fixed", tokens = 50 }

[[replicas]]
model = "Qwen2.5-14B"
gpu = "h100-sxm"
max_model_len = 8192
max_num_seqs = 128
"#;

fn server() -> Server {
    let loaded = Loaded::from_text("server.toml", Path::new(""), SCENARIO.into(), &[]).unwrap();
    Server::of_replica(&loaded.resolve().unwrap().replicas[0])
}

/// The server as it really is: factors that the prior holds possible.
fn truth() -> ([f64; 7], Server) {
    let factors = [1.12, 1.15, 0.9, 1.1, 1.0, 1.4, 1.0];
    let server = server();
    let placement = &server.placement;
    let roofline =
        Roofline::bind_scaled(placement.gpu, &placement.model, &placement.deployment, &Multipliers(factors));
    let priced = server.priced(Arc::new(roofline.unwrap()));
    (factors, priced)
}

fn assert_found(findings: &Findings, factors: [f64; 7], seen: &[&str]) {
    for (index, factor) in factors.into_iter().enumerate() {
        let [low, value, high] = findings.fit.interval(index);
        assert!(low <= factor && factor <= high, "{}: {low} {value} {high}, {factor}", name(index));
        if seen.contains(&name(index)) {
            assert!((value / factor - 1.0).abs() < 0.06, "{}: {value}, {factor}", name(index));
            assert!(findings.fit.learnt(index) > 0.5, "{}: {}", name(index), findings.fit.learnt(index));
        }
    }
}

fn worst_bias(findings: &Findings) -> f64 {
    let aside = findings.after.iter().zip(&findings.fitted).filter(|(_, fitted)| !**fitted);
    let ratios: Vec<f64> = aside.map(|(seen, _)| seen.log_ratio).collect();
    ratios.iter().sum::<f64>().abs() / ratios.len() as f64
}

/// A step log of the real server, with a scatter of 1 %.
fn logged() -> String {
    let (_, server) = truth();
    let mut text = "decodes,context_sum,chunks,seconds\n".to_string();
    let mut row = |count: u32, context: u64, chunks: &[Chunk]| {
        let context_sum = u64::from(count) * context;
        let decodes = Decodes { count, context_sum, context_max: context as u32 };
        let cost = server.step_time.cost(&Batch { chunks, decodes });
        let scatter =
            1.0 + 0.01 * (f64::from((text.len() as u32).wrapping_mul(2_654_435_769) >> 16) / 32_768.0 - 1.0);
        let chunks: Vec<String> =
            chunks.iter().map(|chunk| format!("{}@{}", chunk.tokens, chunk.before)).collect();
        let seconds = cost.gpu.max(cost.host).as_s() * scatter;
        text.push_str(&format!("{count},{context_sum},{},{seconds}\n", chunks.join(" ")));
    };
    for count in [1, 4, 8, 32, 64, 100, 128] {
        for context in [64, 500, 2000, 6000] {
            row(count, context, &[]);
        }
    }
    for (tokens, before) in
        [(64, 0), (256, 0), (512, 0), (2048, 0), (4096, 0), (7000, 0), (512, 4000), (2048, 6000)]
    {
        let chunk = Chunk { tokens, before, samples: true };
        row(0, 0, &[chunk]);
        row(16, 1000, &[chunk]);
        row(64, 500, &[chunk, Chunk { tokens: 100, before: 0, samples: true }]);
    }
    text
}

#[test]
fn factors_are_found_again_in_steps() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("steps.csv");
    fs::write(&path, logged()).unwrap();
    let steps = step_log::read(&path, &server().placement.deployment).unwrap();
    assert_eq!(steps.len(), 52);
    let subject = Subject { server: server(), evidence: vec![Evidence::Steps(steps)] };
    let findings = subject.calibrate(false).unwrap();
    assert_found(&findings, truth().0, &["matrix_products", "decode_attention"]);
    assert!(worst_bias(&findings) < 0.003, "{}", worst_bias(&findings));
}

/// What `vllm bench serve` would have written of the real server at 6 requests/s, with some scatter.
fn benchmark() -> Value {
    let (_, server) = truth();
    let count = 160_u32;
    let lens = |of: &dyn Fn(u32) -> u32| (0..count).map(of).collect::<Vec<u32>>();
    let inputs = lens(&|index| 100 + index * 487 % 2900);
    let outputs = lens(&|index| 2 + index * 131 % 300);
    let starts: Vec<f64> =
        (0..count).map(|index| 100.0 + f64::from(index) / 6.0 + 0.1 * f64::from(index * 7 % 5)).collect();
    let mut result = json!({
        "model_id": "Qwen/Qwen2.5-14B", "input_lens": inputs, "output_lens": outputs, "start_times": starts,
        "ttfts": vec![1.0; count as usize], "itls": vec![[1.0]; count as usize],
        "errors": vec![""; count as usize],
    });
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bench.json");
    fs::write(&path, result.to_string()).unwrap();
    let (run, failed) = bench::read(&path).unwrap();
    assert_eq!((run.requests.len(), failed), (160, 0));
    let waits = latency::waits(&run, &server, Way::LOCAL);
    let (mut ttfts, mut itls) = (vec![0.0; count as usize], vec![Vec::new(); count as usize]);
    for (request, waits) in run.requests.iter().zip(waits) {
        let (_, simulated) = waits.unwrap();
        let index = request.id as usize;
        let scatter = f64::from((request.id as u32).wrapping_mul(2_654_435_769) >> 16) / 32_768.0 - 1.0;
        ttfts[index] = simulated.ttft.as_s() * (1.0 + 0.06 * scatter);
        let gap_s = simulated.tpot.unwrap().as_s() * (1.0 + 0.02 * scatter);
        itls[index] = vec![gap_s; request.output_tokens as usize - 1];
    }
    result["ttfts"] = json!(ttfts);
    result["itls"] = json!(itls);
    result
}

#[test]
fn factors_are_found_again_in_a_benchmark() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bench.json");
    fs::write(&path, benchmark().to_string()).unwrap();
    let (run, _) = bench::read(&path).unwrap();
    let subject = Subject { server: server(), evidence: vec![Evidence::of_run(run)] };
    let findings = subject.calibrate(false).unwrap();
    assert_found(&findings, truth().0, &["matrix_products"]);
    assert!(worst_bias(&findings) < 0.01, "{}", worst_bias(&findings));
    let before =
        findings.before.iter().map(|seen| seen.log_ratio).sum::<f64>() / findings.before.len() as f64;
    assert!(before < -0.08, "the catalogue is meant to be off: {before}");
}

#[test]
fn what_is_wrong_with_measurements_is_said() {
    let folder = TempDir::new().unwrap();
    let said_of_bench = |change: &dyn Fn(&mut Value)| {
        let mut result = json!({
            "input_lens": [10, 20], "output_lens": [3, 3], "start_times": [5.0, 6.0], "ttfts": [0.1, 0.1],
            "itls": [[0.1, 0.1], [0.1, 0.1]], "errors": ["", ""],
        });
        change(&mut result);
        let path = folder.path().join("bench.json");
        fs::write(&path, result.to_string()).unwrap();
        match bench::read(&path) {
            Ok((run, failed)) => format!("{} requests, {failed} failed", run.requests.len()),
            Err(error) => error.to_string().replace(&folder.path().display().to_string(), "FOLDER"),
        }
    };
    assert_eq!(said_of_bench(&|_| {}), "2 requests, 0 failed");
    assert_eq!(said_of_bench(&|result| result["errors"] = json!(["", "timeout"])), "1 requests, 1 failed");
    let text = said_of_bench(&|result| drop(result.as_object_mut().unwrap().remove("ttfts")));
    assert_eq!(
        text,
        "FOLDER/bench.json: has no ttfts: run `vllm bench serve` with --save-result --save-detailed"
    );
    let text = said_of_bench(&|result| drop(result.as_object_mut().unwrap().remove("start_times")));
    assert!(text.contains("has no start_times"), "{text}");
    let text = said_of_bench(&|result| result["itls"] = json!([[0.1]]));
    assert!(text.contains("itls: expected 2 entries as in input_lens, got 1"), "{text}");

    let said_of_steps = |rows: &str| {
        let path = folder.path().join("steps.csv");
        fs::write(&path, rows).unwrap();
        let read = step_log::read(&path, &server().placement.deployment);
        read.unwrap_err().to_string().replace(&folder.path().display().to_string(), "FOLDER")
    };
    assert_eq!(
        said_of_steps("decodes,seconds\n1,2\n"),
        "FOLDER/steps.csv:1: a step log has a column context_sum; this file has decodes, seconds"
    );
    let head = "decodes,context_sum,chunks,seconds\n";
    let text = said_of_steps(&format!("{head}1,100,,0.01\n1,100,512,0.01\n"));
    assert_eq!(text, "FOLDER/steps.csv:3: chunks: expected tokens@before, such as 512@0, got \"512\"");
    let text = said_of_steps(&format!("{head}1,100,,-0.01\n"));
    assert!(text.contains(":2: seconds: expected a number above zero"), "{text}");
    let text = said_of_steps(&format!("{head}500,100000,,0.01\n"));
    assert!(text.contains("500 sequences are more than max_num_seqs = 128"), "{text}");
    assert!(said_of_steps(head).contains("holds no steps"));
}
