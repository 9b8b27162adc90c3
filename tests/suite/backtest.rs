//! Fleets against what was measured of them: a fleet that made the measurements itself is found without error.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tailcast::report::csv;
use tailcast::request::Outcome;
use tailcast::scenario::{Loaded, Scenario};
use tailcast::study::compare::{Contender, Repetitions};
use tailcast::study::{Keep, Traces, compare};
use tailcast::verify::fleet::{against_histograms, against_rows};
use tailcast::verify::{gateway, prometheus};
use tempfile::TempDir;

const FLEET: &str = r#"
[workload]
requests = 400
arrivals = { rate_per_s = 20 }
prompt_tokens = { distribution = "lognormal", mean = 700, std = 500, max = 4000 }
output_tokens = { distribution = "lognormal", mean = 150, std = 100, max = 900 }

[network]
router_to_replica_ms = 2
frontend_ms = 5
per_token_us = 46

[[replicas]]
count = 3
model = "Llama-3.1-8B"
gpu = "a100-80-sxm"
max_model_len = 8192

[router]
policy = "least-request"
"#;

fn fleet(assignments: &[&str]) -> Scenario {
    let assignments: Vec<String> = assignments.iter().map(|text| (*text).to_string()).collect();
    Loaded::from_text("fleet.toml", Path::new(""), FLEET.into(), &assignments).unwrap().resolve().unwrap()
}

fn lived(scenario: &Scenario) -> tailcast::study::Comparison {
    let contenders = [Contender { name: scenario.router.policy.clone(), scenario: scenario.clone() }];
    compare(&contenders, &mut Traces::default(), Repetitions::Fixed, false, Keep::Outcomes, &|| ()).unwrap()
}

#[test]
fn a_fleet_agrees_with_its_own_gateway_rows() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("requests.csv");
    let text = csv::requests(&lived(&fleet(&[]))).unwrap();
    fs::write(&path, &text).unwrap();
    let rows = gateway::read(&path).unwrap();
    assert_eq!((rows.rows.len(), rows.unanswered), (400, 0));
    let sides = against_rows(&fleet(&[]), &rows).unwrap();
    assert_eq!(sides.iter().map(|side| side.name.as_str()).collect::<Vec<_>>(), ["all", "0", "1", "2"]);
    for side in &sides {
        assert_eq!(side.requests[0], side.requests[1]);
        assert_eq!(side.figures.len(), 15);
        assert!(side.figures.iter().all(|figure| figure.error().abs() < 1e-6), "{side:?}");
    }
    // A millisecond more for each token on the way back is a millisecond more in TPOT, and nothing else is moved.
    let other = against_rows(&fleet(&["network.per_token_us=1046"]), &rows).unwrap();
    let [ttft, tpot] = [&other[0].figures[0], &other[0].figures[5]];
    assert!(ttft.error().abs() < 1e-6, "{ttft:?}");
    assert!((tpot.simulated_ms - tpot.real_ms - 1.0).abs() < 1e-3, "{tpot:?}");
    let other = against_rows(&fleet(&["router.policy=random"]), &rows).unwrap();
    assert_ne!(other[1].requests[1], other[1].requests[0]);

    let fewer = against_rows(&fleet(&["replicas.count=2"]), &rows).unwrap_err().to_string();
    assert!(fewer.contains("replica `2` was measured, and the scenario has 2 replicas"), "{fewer}");

    let said = |text: &str| {
        fs::write(&path, text).unwrap();
        gateway::read(&path).unwrap_err().to_string().replace(&folder.path().display().to_string(), "FOLDER")
    };
    assert!(said("sent_s,ttft_ms\n").contains("have a column prompt_tokens; this file has sent_s, ttft_ms"));
    let text = said("sent_s,prompt_tokens,output_tokens,ttft_ms,e2e_ms\n0,10,5,30,20\n");
    assert_eq!(text, "FOLDER/requests.csv:2: expected 0 < ttft_ms <= e2e_ms, got 30 and 20");
}

/// What the servers of this fleet would show on /metrics.
fn page(outcomes: &[&Outcome]) -> String {
    let bounds = [0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, f64::INFINITY];
    let mut text = String::new();
    let mut histogram = |name: &str, values: &[f64]| {
        for bound in bounds {
            let count = values.iter().filter(|value| **value <= bound).count();
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".into() };
            writeln!(text, "{name}_bucket{{engine=\"0\",le=\"{bound}\",model_name=\"m\"}} {count}.0")
                .unwrap();
        }
        writeln!(text, "{name}_sum{{engine=\"0\",model_name=\"m\"}} {}", values.iter().sum::<f64>()).unwrap();
    };
    let of =
        |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(|outcome| value(outcome)).collect::<Vec<_>>();
    let ttft = |outcome: &Outcome| outcome.engine_ttft().unwrap().as_s();
    let e2e = |outcome: &Outcome| (outcome.engine.as_ref().unwrap().done - outcome.arrived.unwrap()).as_s();
    histogram("vllm:time_to_first_token_seconds", &of(&ttft));
    histogram("vllm:e2e_request_latency_seconds", &of(&e2e));
    text
}

#[test]
fn a_fleet_agrees_with_its_own_histograms() {
    let folder = TempDir::new().unwrap();
    let comparison = lived(&fleet(&[]));
    let mut scrapes = Vec::new();
    for replica in 0..3 {
        let own: Vec<&Outcome> = comparison.ranking[0]
            .outcomes
            .iter()
            .filter(|outcome| outcome.replica == Some(replica))
            .collect();
        let path = folder.path().join(format!("replica-{replica}.prom"));
        fs::write(&path, page(&own)).unwrap();
        scrapes.extend(prometheus::read(&path).unwrap());
    }
    let bounds = against_histograms(&fleet(&[]), &scrapes).unwrap();
    assert_eq!(bounds.len(), 4 * 2 * 5);
    for bound in &bounds {
        assert!(bound.error().abs() < 1e-6, "{bound:?}");
    }
    // A fleet twice as busy lies outside.
    let busier = against_histograms(&fleet(&["workload.arrivals.rate_per_s=60"]), &scrapes).unwrap();
    assert!(busier.iter().any(|bound| bound.error() > 0.1));
}
