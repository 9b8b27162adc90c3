//! Measured runs: what `verify latency` makes of them, of broken ones, and of one that the model itself has made.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tailcast::time::Span;
use tailcast::verify::latency::{self, Verdict, Way};
use tailcast::verify::measured::MeasuredRun;
use tailcast::verify::server::{Given, Server};
use tailcast::verify::steps;
use tempfile::TempDir;

use crate::shared::shared;

fn verify(path: &Path, given: &Given) -> Result<Verdict, String> {
    let run = MeasuredRun::read(path).map_err(|error| error.to_string())?;
    let server = Server::of(&run, given).map_err(|error| error.to_string())?;
    Ok(latency::replay(&run, &server, Way::LOCAL))
}

fn furthest_off(verdict: &Verdict) -> f64 {
    verdict.figures().iter().map(|figure| figure.error().abs()).fold(0.0, f64::max)
}

fn meta() -> Value {
    json!({
        "model": "meta-llama/Llama-3.1-8B",
        "vllm_version": "0.24.0",
        "hardware": { "device_name": "NVIDIA GeForce RTX 4090" },
        "kv_cache": { "num_gpu_blocks": 900 },
        "engine_kwargs": { "max_num_seqs": 64, "max_model_len": 4096, "tensor_parallel_size": 1 },
    })
}

/// A run of 80 requests, many of which begin alike; their moments are made up.
fn made_up_requests() -> Vec<Value> {
    (0..80u64)
        .map(|id| {
            let sent = 0.05 * id as f64 + 0.3 * (id % 3) as f64;
            let blocks: Vec<u64> = (0..20).map(|block| if block < 8 { block } else { 100 * id + block }).collect();
            json!({
                "id": id, "client_s": sent, "queued_s": sent, "scheduled_s": sent, "first_token_s": sent + 1.0,
                "last_token_s": sent + 9.0, "prompt_tokens": 300 + 7 * id, "output_tokens": 40 + 3 * (id % 11),
                "block_ids": blocks,
            })
        })
        .collect()
}

fn write(folder: &Path, meta: &Value, requests: &[Value]) -> PathBuf {
    fs::write(folder.join("run.meta.json"), meta.to_string()).unwrap();
    let lines: Vec<String> = requests.iter().map(Value::to_string).collect();
    let path = folder.join("run.requests.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    path
}

/// A server that is the model to the last step is found without error; one that takes a tenth longer is not.
#[test]
fn the_model_agrees_with_itself() {
    let folder = TempDir::new().unwrap();
    let mut requests = made_up_requests();
    let path = write(folder.path(), &meta(), &requests);
    let first = verify(&path, &Given::default()).unwrap();
    assert!(first.preemptions > 0, "900 blocks are meant to be too few");
    let run = MeasuredRun::read(&path).unwrap();
    for (request, (_, outcome)) in run.requests.iter().zip(&first.outcomes) {
        let line = &mut requests[request.id as usize];
        line["queued_s"] = json!(outcome.queued.as_s());
        line["scheduled_s"] = json!(outcome.scheduled.unwrap().as_s());
        line["first_token_s"] = json!(outcome.first_token.unwrap().as_s());
        line["last_token_s"] = json!(outcome.done.as_s());
    }
    let again = verify(&write(folder.path(), &meta(), &requests), &Given::default()).unwrap();
    assert!(furthest_off(&again) < 1e-6, "{:?}", again.figures());
    assert_eq!(again.figures().len(), 15);

    for line in &mut requests {
        let (queued, last) = (line["queued_s"].as_f64().unwrap(), line["last_token_s"].as_f64().unwrap());
        line["last_token_s"] = json!(last + 0.1 * (last - queued));
    }
    let slower = verify(&write(folder.path(), &meta(), &requests), &Given::default()).unwrap();
    let e2e = slower.figures().into_iter().find(|figure| figure.metric == "E2E").unwrap();
    assert!((e2e.error() + 0.1 / 1.1).abs() < 1e-6, "{e2e:?}");
}

/// Without `queued_s` the run is a client's: what its requests wait is what the engine's waited, and the way.
#[test]
fn a_client_waits_for_the_way_too() {
    let folder = TempDir::new().unwrap();
    let mut requests = made_up_requests();
    for line in &mut requests {
        for key in ["queued_s", "scheduled_s"] {
            line.as_object_mut().unwrap().remove(key);
        }
    }
    let run = MeasuredRun::read(&write(folder.path(), &meta(), &requests)).unwrap();
    let server = Server::of(&run, &Given::default()).unwrap();
    let mean = |way: Way| {
        let verdict = latency::replay(&run, &server, way);
        let mean =
            |metric| verdict.figures().iter().find(|figure| figure.metric == metric).unwrap().simulated_ms;
        [mean("TTFT"), mean("TPOT"), mean("E2E")]
    };
    let near = mean(Way::default());
    // Half of the network moves every arrival, which changes nothing but the moments.
    let far = mean(Way { network: Span::from_ms(40), ..Way::default() });
    assert!((far[0] - near[0] - 40.0).abs() < 1e-6 && (far[1] - near[1]).abs() < 1e-6, "{near:?} {far:?}");
    let slow = mean(Way { front_end: Span::from_ms(5), per_token: Span::from_ms(2), ..Way::default() });
    assert!(
        (slow[0] - near[0] - 5.0).abs() < 1e-6 && (slow[1] - near[1] - 2.0).abs() < 1e-6,
        "{near:?} {slow:?}"
    );
    let tokens: u64 = (0..80u64).map(|id| 39 + 3 * (id % 11)).sum();
    assert!((slow[2] - near[2] - 5.0 - 2.0 * tokens as f64 / 80.0).abs() < 1e-6, "{near:?} {slow:?}");
}

/// Engines of a dense model never report, so its front end deals requests out like cards.
#[test]
fn data_parallel_engines_share_the_requests() {
    let folder = TempDir::new().unwrap();
    let mut meta = meta();
    meta["engine_kwargs"]["data_parallel_size"] = json!(2);
    let requests = made_up_requests();
    let one = verify(&write(folder.path(), &self::meta(), &requests), &Given::default()).unwrap();
    let two = verify(&write(folder.path(), &meta, &requests), &Given::default()).unwrap();
    assert_eq!(two.outcomes.len(), 80);
    assert_eq!(two.outcomes.iter().filter(|(rank, _)| *rank == 0).count(), 40);
    assert!(two.simulated.e2e.mean_ms < one.simulated.e2e.mean_ms, "two engines have room for twice as many");

    // Ranks that were recorded are kept, and a rank that the server does not have is an error.
    let pinned: Vec<Value> = requests
        .iter()
        .map(|line| {
            let mut line = line.clone();
            line["rank"] = json!(u64::from(line["id"] == 7));
            line
        })
        .collect();
    let verdict = verify(&write(folder.path(), &meta, &pinned), &Given::default()).unwrap();
    assert_eq!(verdict.outcomes.iter().filter(|(rank, _)| *rank == 1).count(), 1);
    let text = verify(&write(folder.path(), &self::meta(), &pinned), &Given::default()).unwrap_err();
    assert!(text.ends_with("request 7: rank 1 of a server with data_parallel_size = 1"), "{text}");
}

/// Engines that share experts wait for each other: the slowest step is everybody's.
#[test]
fn engines_that_share_experts_step_together() {
    let folder = TempDir::new().unwrap();
    let mut meta = meta();
    meta["model"] = json!("Qwen/Qwen3-30B-A3B");
    meta["hardware"]["device_name"] = json!("NVIDIA H100 80GB HBM3");
    meta["engine_kwargs"]["data_parallel_size"] = json!(2);
    meta["engine_kwargs"]["enable_expert_parallel"] = json!(true);
    meta["kv_cache"]["num_gpu_blocks"] = json!(4000);
    let requests = made_up_requests();
    let verdict = verify(&write(folder.path(), &meta, &requests), &Given::default()).unwrap();
    let on = |rank| verdict.outcomes.iter().filter(|(of, _)| *of == rank).count();
    assert_eq!(on(0) + on(1), 80);
    assert!(on(0).abs_diff(on(1)) < 12, "{} {}", on(0), on(1));
    // A lone request decodes as fast on one engine of two as its own steps and the dummies of the other allow.
    let alone = verify(&write(folder.path(), &meta, &requests[..1]), &Given::default()).unwrap();
    assert!(alone.simulated.tpot.mean_ms < verdict.simulated.tpot.mean_ms);
}

/// Regression guard: how far the two recorded servers are off, as `docs/accuracy.md` says, and no further.
#[test]
fn recorded_servers_stay_as_near_as_they_are() {
    let Some(folder) = shared("ground-truth") else { return };
    let runs = [
        ("rtx4090-llama-3.1-8b", true, 0.018),
        ("rtx4090-llama-3.1-8b", false, 0.020),
        ("rtxpro6000-llama-3.1-8b", true, 0.068),
        ("rtxpro6000-llama-3.1-8b", false, 0.032),
    ];
    for (name, with_profile, limit) in runs {
        let profile = with_profile.then(|| folder.join(format!("profile-{name}")));
        let given = Given { profile, ..Given::default() };
        let verdict = verify(&folder.join(format!("{name}.requests.jsonl.gz")), &given).unwrap();
        let off = furthest_off(&verdict);
        assert!(off <= limit, "{name}, profile {with_profile}: {off}");
    }
}

#[test]
fn broken_runs_are_answered_with_file_and_place() {
    let folder = TempDir::new().unwrap();
    let requests = made_up_requests();
    let said = |meta: &Value, requests: &[Value]| {
        let text = verify(&write(folder.path(), meta, requests), &Given::default()).unwrap_err();
        text.replace(&folder.path().display().to_string(), "FOLDER")
    };
    let with = |key: &str, value: Value| {
        let mut meta = meta();
        meta["engine_kwargs"][key] = value;
        meta
    };
    let text = said(&with("max_num_seqs", json!("many")), &requests);
    assert_eq!(text, "FOLDER/run.meta.json: max_num_seqs: expected a whole number, got \"many\"");
    let text = said(&with("enable_prefix_caching", json!(1)), &requests);
    assert!(text.ends_with("enable_prefix_caching: expected true or false, got 1"), "{text}");

    let mut unknown = meta();
    unknown["model"] = json!("meta-llama/Llama-3.1-8Bee");
    let text = said(&unknown, &requests);
    assert!(
        text.contains("no model named") && text.contains("llama-3.1-8b") && text.contains("--model"),
        "{text}"
    );
    let mut no_card = meta();
    no_card["hardware"] = json!({});
    let text = said(&no_card, &requests);
    assert!(text.contains("names no card of the catalogue; say --gpu NAME"), "{text}");

    let mut backwards = requests.clone();
    backwards[3]["first_token_s"] = json!(0.0);
    let text = said(&meta(), &backwards);
    assert!(text.starts_with("FOLDER/run.requests.jsonl:4: expected queued_s <= scheduled_s"), "{text}");
    let mut long = requests.clone();
    long[5]["prompt_tokens"] = json!(5000);
    let text = said(&meta(), &long);
    assert!(text.contains("run.requests.jsonl: request 5: a prompt of 5000 tokens"), "{text}");
    let text = said(&meta(), &[]);
    assert!(text.ends_with("holds no requests"), "{text}");
}

/// Single operators: the goals that are met stay met, and a table that cannot be told is refused.
#[test]
fn operators_stay_within_what_the_board_says() {
    let unknown = steps::judge(Path::new("gemm_h999_bf16.csv")).unwrap_err().to_string();
    assert!(unknown.contains("`h999` names no card"), "{unknown}");
    let unknown = steps::judge(Path::new("norms.csv")).unwrap_err().to_string();
    assert!(unknown.contains("its name tells no operator; the tables are gemm_CARD_"), "{unknown}");
    let Some(folder) = shared("profiles") else { return };
    for card in ["h100", "h200", "b200"] {
        let judged = steps::judge(&folder.join(format!("gemm_{card}_bf16_vllm0.24.0.csv.gz"))).unwrap();
        assert!(judged.all.count() > 5_000 && !judged.left_out.is_empty());
        let (median, p90) = (judged.all.quantile(0.5), judged.all.quantile(0.9));
        assert!(median <= 0.05 && p90 <= 0.15, "{card}: {median} {p90}");
    }
    let refused = steps::judge(&folder.join("gemm_h100_fp8_vllm0.24.0.csv.gz")).unwrap_err().to_string();
    assert!(refused.contains("only bf16 tables are judged"), "{refused}");
}
