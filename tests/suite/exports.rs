//! What a result is given to: explanations, pages, traces for viewers, metrics, Parquet, schemas.

use std::collections::BTreeSet;
use std::fs;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use crate::cli::{SCENARIO, folder_with};
use crate::decisions::{refused, run};

/// A folder with the result of a comparison in `result`.
fn compared() -> tempfile::TempDir {
    let folder = folder_with(SCENARIO);
    let text = SCENARIO.replace("repeat = 3", "repeat = 3\npolicies = [\"least-request\", \"random\"]")
        + "\n[slo.p99]\nttft_ms = 40\n";
    fs::write(folder.path().join("scenario.toml"), text).unwrap();
    run(folder.path(), &["compare", "scenario.toml", "--out", "result", "--quiet"]);
    folder
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_result_is_explained() {
    let folder = compared();
    let at = folder.path();
    let text = run(at, &["explain", "result", "--parts", "parts.csv"]);
    for needed in
        ["behind prompts of others", "own prompt", "The slowest", "elsewhere:", "sum to it to the picosecond"]
    {
        assert!(text.contains(needed), "no {needed} in\n{text}");
    }
    // The sums are those of requests.csv, which has them to the femtosecond.
    let mut parts = csv::Reader::from_path(at.join("parts.csv")).unwrap();
    let head = parts.headers().unwrap().clone();
    let place = |name: &str| head.iter().position(|own| own == name).unwrap();
    let own_name = text.lines().nth(1).unwrap().split(',').next().unwrap().to_string();
    let mut requests = csv::Reader::from_path(at.join("result/requests.csv")).unwrap();
    let columns = requests.headers().unwrap().clone();
    let of = |row: &csv::StringRecord, name: &str| {
        row[columns.iter().position(|own| own == name).unwrap()].to_string()
    };
    let own: Vec<csv::StringRecord> =
        requests.records().map(Result::unwrap).filter(|row| of(row, "name") == own_name).collect();
    let rows: Vec<csv::StringRecord> = parts.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), own.len());
    for (row, request) in rows.iter().zip(&own) {
        for (latency, column) in [("ttft", "ttft_ms"), ("e2e", "e2e_ms")] {
            let whole: i64 = row[place(&format!("{latency}_ps"))].parse().unwrap();
            let all = head.iter().zip(row).filter(|(name, _)| {
                name.starts_with(&format!("{latency}_")) && **name != format!("{latency}_ps")
            });
            assert_eq!(all.map(|(_, ps)| ps.parse::<i64>().unwrap()).sum::<i64>(), whole);
            let ms: f64 = of(request, column).parse().unwrap();
            assert!((whole as f64 / 1e9 - ms).abs() < 1e-6, "{whole} {ms}");
        }
    }
    let told = json(&run(at, &["explain", "result", "--policy", "random", "--json"]));
    assert_eq!(told["name"], "random");
    assert_eq!(told["slowest"].as_array().unwrap().len(), 10);
    assert_eq!(told["slowest"][0]["e2e_by_replica_ms"].as_array().unwrap().len(), 3);
    assert!(run(at, &["explain", "memory", "scenario.toml"]).contains("KV cache"));
}

#[test]
fn what_is_no_result_is_refused() {
    let folder = compared();
    let at = folder.path();
    assert!(refused(at, &["explain", "nowhere"]).contains("name a folder that `tailcast compare`"));
    assert!(refused(at, &["explain", "result", "--policy", "randon"]).contains("random"));
    assert!(refused(at, &["export", "parquet", "."]).contains("none of the tables"));
    for own in [
        &["explain", "result", "--parts", "result/requests.csv"][..],
        &["report", "result", "--out", "result/summary.json"],
    ] {
        assert!(refused(at, own).contains("is part of a result"), "{own:?}");
    }
    let summary = at.join("result/summary.json");
    let text = fs::read_to_string(&summary).unwrap();
    fs::write(&summary, text.replacen("\"schema_version\": 2", "\"schema_version\": 1", 1)).unwrap();
    assert!(refused(at, &["explain", "result"]).contains("reads results of schema version 2"));
    fs::write(&summary, text).unwrap();
    // One request has no rate that could be raised, and no replica is better than the only one.
    let one = [
        "compare",
        "scenario.toml",
        "--set",
        "workload.requests=1",
        "--set",
        "replicas.count=1",
        "--out",
        "one",
        "--quiet",
    ];
    run(at, &one);
    run(at, &["report", "one", "--quiet"]);
    assert!(!run(at, &["explain", "one"]).contains("any other replica"));
    assert!(
        refused(at, &["export", "perfetto", "result", "--from-s", "5", "--to-s", "4", "--out", "x"])
            .contains("behind")
    );
    assert!(refused(at, &["export", "prometheus", "result", "--at-s=-1"]).contains("--at-s"));
    // What the scenario says now is not what it said.
    let scenario = at.join("result/scenario.toml");
    let text = fs::read_to_string(&scenario).unwrap();
    fs::write(&scenario, text.replace("seed = 3", "seed = 4")).unwrap();
    for arguments in [
        &["explain", "result"][..],
        &["report", "result", "--no-load-curve"],
        &["export", "prometheus", "result"],
    ] {
        assert!(refused(at, arguments).contains("gives other figures"), "{arguments:?}");
    }
}

#[test]
fn a_trace_for_viewers_holds_every_step() {
    let folder = compared();
    let at = folder.path();
    run(at, &["export", "perfetto", "result", "--out", "trace.json"]);
    let trace = json(&fs::read_to_string(at.join("trace.json")).unwrap());
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
    let summary = json(&fs::read_to_string(at.join("result/summary.json")).unwrap());
    let first = &summary["ranking"][0]["repetitions"][0];
    assert_eq!(of("X").len() as u64, first["steps"].as_u64().unwrap());
    assert_eq!(of("b").len(), of("e").len());
    let requests =
        of("b").iter().filter(|event| event["name"].as_str().unwrap().starts_with("request ")).count();
    assert_eq!(requests as u64, first["offered"].as_u64().unwrap());
    // Steps of one replica do not overlap.
    for replica in 0..3 {
        let mut steps: Vec<(f64, f64)> = of("X")
            .iter()
            .filter(|step| step["pid"] == replica)
            .map(|step| (step["ts"].as_f64().unwrap(), step["dur"].as_f64().unwrap()))
            .collect();
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(steps.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0 + 1e-6));
    }
    run(at, &["export", "perfetto", "result", "--from-s", "0.5", "--to-s", "0.7", "--out", "part.json.gz"]);
    let packed = fs::File::open(at.join("part.json.gz")).unwrap();
    let part: Value = serde_json::from_reader(flate2::read::GzDecoder::new(packed)).unwrap();
    let steps = part["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X");
    assert!(steps.clone().count() > 0);
    assert!(steps.map(|step| step["ts"].as_f64().unwrap()).all(|us| (5e5..7e5).contains(&us)));
}

#[test]
fn metrics_are_those_of_the_servers() {
    let folder = compared();
    let at = folder.path();
    let page = run(at, &["export", "prometheus", "result"]);
    fs::write(at.join("metrics.txt"), &page).unwrap();
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    let sum = |start: &str| page.lines().filter(|line| line.starts_with(start)).map(value).sum::<f64>();
    let summary = json(&fs::read_to_string(at.join("result/summary.json")).unwrap());
    let first = &summary["ranking"][0]["repetitions"][0];
    assert_eq!(sum("vllm:request_success_total{"), first["completed"].as_f64().unwrap());
    assert_eq!(sum("vllm:e2e_request_latency_seconds_count{"), first["completed"].as_f64().unwrap());
    let mean_ms =
        sum("vllm:time_to_first_token_seconds_sum{") / sum("vllm:time_to_first_token_seconds_count{") * 1e3;
    assert!((mean_ms - first["engine_ttft"]["mean_ms"].as_f64().unwrap()).abs() < 1e-6);
    // One gap less than tokens, for every request.
    let tokens = sum("vllm:generation_tokens_total{");
    assert_eq!(sum("vllm:inter_token_latency_seconds_count{"), tokens - first["completed"].as_f64().unwrap());
    assert_eq!(sum("vllm:iteration_tokens_total_count{"), first["steps"].as_f64().unwrap());
    assert_eq!(sum("vllm:num_requests_running{"), 0.0);
    // What reads real servers' pages reads these.
    let scrapes = tailcast::verify::prometheus::read(&at.join("metrics.txt")).unwrap();
    assert_eq!(scrapes.len(), 1);
    assert_eq!(
        scrapes[0].histograms["vllm:e2e_request_latency_seconds"].count(),
        first["completed"].as_f64().unwrap()
    );
    let earlier = run(at, &["export", "prometheus", "result", "--at-s", "1"]);
    let running =
        earlier.lines().filter(|line| line.starts_with("vllm:num_requests_running{")).map(value).sum::<f64>();
    assert!(running > 0.0);
}

#[test]
fn tables_are_parquet_too() {
    let folder = compared();
    let at = folder.path();
    let written = run(at, &["export", "parquet", "result"]);
    assert_eq!(written.lines().count(), 3);
    for table in ["requests", "windows", "timeline"] {
        let rows =
            csv::Reader::from_path(at.join(format!("result/{table}.csv"))).unwrap().into_records().count();
        let file = fs::File::open(at.join(format!("result/{table}.parquet"))).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), rows as i64, "{table}");
    }
    run(at, &["sweep", "scenario.toml", "--over", "replicas.count=2,3", "--out", "sweep", "--quiet"]);
    assert_eq!(run(at, &["export", "parquet", "sweep"]), "sweep/sweep.parquet\n");
}

/// Whatever stands in a summary stands in its schema.
fn keys_are_known(value: &Value, schema: &Value, root: &Value, path: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let any: Vec<&Value> = schema["anyOf"].as_array().into_iter().flatten().collect();
    if !any.is_empty() {
        let real = any.iter().find(|schema| schema["type"] != "null").unwrap();
        return keys_are_known(value, real, root, path);
    }
    match value {
        Value::Object(map) if schema["properties"].is_object() => {
            let known: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
            for (key, value) in map {
                assert!(known.contains(key), "{path}.{key} is not in the schema");
                keys_are_known(value, &schema["properties"][key], root, &format!("{path}.{key}"));
            }
            for needed in schema["required"].as_array().into_iter().flatten() {
                assert!(map.contains_key(needed.as_str().unwrap()), "{path}: no {needed}");
            }
        }
        Value::Array(list) if schema["items"].is_object() => {
            list.iter().for_each(|value| keys_are_known(value, &schema["items"], root, path));
        }
        _ => {}
    }
}

#[test]
fn the_summary_follows_its_schema() {
    let folder = compared();
    let schema = json(&run(folder.path(), &["schema", "summary"]));
    let summary = json(&fs::read_to_string(folder.path().join("result/summary.json")).unwrap());
    assert!(summary["ranking"][0]["episodes"].is_array());
    keys_are_known(&summary, &schema, &schema, "summary");
    assert!(run(folder.path(), &["schema"]).contains("workload"));
}

#[test]
fn a_report_is_one_file_and_the_same_every_time() {
    let folder = compared();
    let at = folder.path();
    run(at, &["report", "result", "--threads", "1"]);
    let page = fs::read_to_string(at.join("result/report.html")).unwrap();
    run(at, &["report", "result", "--threads", "3", "--out", "again.html"]);
    assert_eq!(page, fs::read_to_string(at.join("again.html")).unwrap());
    for needed in [
        "class=\"headline\"",
        "Latency against load",
        "The slowest, one by one",
        "rate_per_s = 30",
        "TTFT P99 &lt;= 40 ms",
    ] {
        assert!(page.contains(needed), "no {needed}");
    }
    assert!(!page.contains("{{") && !page.contains("src=") && !page.contains("https://"));
    // A result with its report, and its Parquet, can be made anew.
    run(at, &["compare", "scenario.toml", "--out", "result", "--quiet"]);
    assert!(!at.join("result/report.html").exists());
}
