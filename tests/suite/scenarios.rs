//! The scenarios that ship, and what a scenario's own keys show.

use std::fs;
use std::path::Path;

use tailcast::router::POLICIES;
use tempfile::TempDir;

use crate::bad_days::ran;
use crate::cli::{SCENARIO, folder_with, stderr, stdout, tailcast};

/// Classes are counted apart, each by its own limits, and together they are all.
#[test]
fn classes_of_requests_are_shown_apart() {
    let text = SCENARIO.replace(
        "requests = 60",
        "requests = 60\nclasses = [{ name = \"people\", share = 3 }, { name = \"reports\", share = 1, goodput = { e2e_ms = 0.001 } }]",
    );
    let folder = folder_with(&text);
    let output = tailcast(&["run", "scenario.toml", "--set", "repeat=1", "--out", "result"], folder.path());
    assert!(stdout(&output).contains("reports"), "{}", stderr(&output));
    let summary = fs::read_to_string(folder.path().join("result/summary.json")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let run = &value["ranking"][0]["repetitions"][0];
    let (people, reports) = (&run["classes"][0], &run["classes"][1]);
    assert_eq!(people["offered"].as_u64().unwrap() + reports["offered"].as_u64().unwrap(), 60);
    assert_eq!((people["goodput_share"].as_f64(), reports["goodput_share"].as_f64()), (Some(1.0), Some(0.0)));
    let good = people["offered"].as_f64().unwrap() / 60.0;
    assert!((run["goodput_share"].as_f64().unwrap() - good).abs() < 1e-12);
    let rows = fs::read_to_string(folder.path().join("result/requests.csv")).unwrap();
    assert_eq!(rows.matches(",reports,").count() as u64, reports["offered"].as_u64().unwrap());
}

/// Every scenario that ships runs, and says in its first line what it shows.
#[test]
fn the_scenarios_that_ship_run() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut count = 0;
    let entries = ["", "performance", "workloads", "policies", "claims", "bad-days"]
        .into_iter()
        .flat_map(|folder| fs::read_dir(scenarios.join(folder)).unwrap());
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        assert!(fs::read_to_string(&path).unwrap().starts_with("# "), "{}", path.display());
        let folder = TempDir::new().unwrap();
        let scenario = path.display().to_string();
        let mut arguments = vec!["compare", &scenario, "--out", "result"];
        if scenario.contains("quickstart") {
            arguments.extend(["--set", "repeat=2", "--set", "workload.requests=300", "--set", "warmup_s=1"]);
        }
        if scenario.contains("performance") {
            // What they cost in full is measured by the bench; that they run is shown with a few requests.
            arguments = vec!["run", &scenario, "--set", "workload.requests=400"];
            if scenario.contains("fleet-200") {
                arguments.extend(["--set", "repeat=2"]);
            }
        }
        if scenario.contains("/bad-days/") {
            // The whole of it is told in docs/bad-days.md; that it runs is shown with its first minute.
            arguments.extend(["--set", "workload.requests=300", "--set", "warmup_s=0", "--set", "repeat=2"]);
        }
        if scenario.contains("/policies/") {
            arguments.extend(["--set", "workload.requests=60", "--set", "warmup_s=0", "--set", "repeat=2"]);
        }
        if scenario.contains("/claims/") {
            // Their figures are docs/claims.md's: here a few requests show that they are scenarios.
            arguments = vec!["run", &scenario, "--set", "workload.requests=60", "--set", "warmup_s=0"];
        }
        if scenario.contains("/workloads/") {
            // One of its policies tells whether its workload is one.
            arguments = vec!["run", &scenario];
            if fs::read_to_string(&path).unwrap().contains("\nrepeat") {
                arguments.extend(["--set", "repeat=2"]);
            }
        }
        let output = tailcast(&arguments, folder.path());
        let refuses = scenario.contains("memory-too-much");
        assert_eq!(
            output.status.code(),
            Some(if refuses { 2 } else { 0 }),
            "{scenario}: {}",
            stderr(&output)
        );
        assert_eq!(stderr(&output).contains("cannot start"), refuses);
        count += 1;
    }
    assert!(count >= 40);
}

/// A fleet that is flooded far beyond its slots: no policy's view of it, nor a price it asks for, is too much for the tables of a
/// real card.
#[test]
fn every_policy_bears_a_flood() {
    for policy in POLICIES.iter().filter(|policy| policy.name != "script") {
        let text = format!(
            "[workload]\nrequests = 150\narrivals = {{ rate_per_s = 500.0 }}\nprompt_tokens = {{ distribution = \"fixed\", tokens = 40 }}\n\
             output_tokens = {{ distribution = \"fixed\", tokens = 50 }}\n[[replicas]]\ncount = 2\nmodel = \"llama-3.1-8b\"\n\
             gpu = \"a100-80-sxm\"\nmax_num_seqs = 8\n[router]\npolicy = \"{}\"\n",
            policy.name
        );
        let (outcomes, summary) = ran(&text);
        assert_eq!(outcomes.len(), 150, "{}", policy.name);
        assert_eq!(summary.completed + summary.rejected, 150, "{}", policy.name);
    }
}
