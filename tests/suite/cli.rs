//! The command as a person uses it: results, messages, exit codes, and the same bytes whenever they should be.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A small scenario, quick enough to run often.
pub(crate) const SCENARIO: &str = r#"title = "Small"
seed = 3
repeat = 3

[workload]
requests = 60
arrivals = { rate_per_s = 30 }
prompt_tokens = { distribution = "uniform", min = 50, max = 900 }
output_tokens = { distribution = "uniform", min = 1, max = 60 }
prefixes = { groups = 3, tokens = 64 }

[[replicas]]
count = 3
model = "Llama-3.1-8B"
gpu = "h100-sxm"
max_model_len = 4096
"#;

pub(crate) fn tailcast(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub(crate) fn folder_with(text: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("scenario.toml"), text).unwrap();
    folder
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.into_iter().map(|path| (path.file_name().unwrap().into(), fs::read(path).unwrap())).collect()
}

/// Law 7: any number of threads gives the same bytes, on stdout and in every file; so does the resolved scenario.
#[test]
fn results_are_the_same_to_the_byte() {
    let folder = folder_with(SCENARIO);
    let one = tailcast(&["compare", "scenario.toml", "--threads", "1", "--out", "one"], folder.path());
    let two =
        tailcast(&["compare", "scenario.toml", "--threads", "4", "--out", "two", "--check"], folder.path());
    assert!(one.status.success() && two.status.success(), "{}", stderr(&one));
    assert_eq!(stdout(&one), stdout(&two));
    assert_eq!(files(&folder.path().join("one")), files(&folder.path().join("two")));
    let again = tailcast(&["compare", "one/scenario.toml", "--out", "again"], folder.path());
    assert_eq!(stdout(&one), stdout(&again), "{}", stderr(&again));
    assert_eq!(files(&folder.path().join("one")), files(&folder.path().join("again")));
}

#[test]
fn a_comparison_shows_what_it_must() {
    let folder = folder_with(SCENARIO);
    let output = tailcast(&["compare", "scenario.toml"], folder.path());
    let text = stdout(&output);
    for needed in [
        "fleet saturates",
        "median batch",
        "prefix_cache_hit_rate",
        "Which differences",
        "predicted-completion",
    ] {
        assert!(text.contains(needed), "no {needed} in\n{text}");
    }
    let names: Vec<PathBuf> =
        files(&folder.path().join("output/scenario")).into_iter().map(|(name, _)| name).collect();
    for needed in
        ["summary.json", "requests.csv", "ttft-cdf.png", "e2e-cdf.svg", "e2e-tail.png", "replicas-random.png"]
    {
        assert!(names.contains(&needed.into()), "no {needed} in {names:?}");
    }
    let summary = fs::read_to_string(folder.path().join("output/scenario/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["schema_version"], tailcast::report::json::SCHEMA_VERSION);
    assert_eq!(summary["ranking"].as_array().unwrap().len(), 6);
    // The parts of every latency sum to it.
    let requests = fs::read_to_string(folder.path().join("output/scenario/requests.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(requests.as_bytes());
    for row in reader.records() {
        let row = row.unwrap();
        let value = |column: usize| row[column].parse::<f64>().unwrap();
        let parts: f64 = (14..21).map(value).sum();
        assert!((parts - value(13)).abs() < 1e-4, "{row:?}");
    }
}

#[test]
fn json_is_the_whole_of_stdout() {
    let folder = folder_with(SCENARIO);
    let output = tailcast(&["run", "scenario.toml", "--json", "--set", "repeat=1", "--quiet"], folder.path());
    let value: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(value["ranking"][0]["policy"], "round-robin");
    assert_eq!(stderr(&output), "");
}

/// Whoever stops reading has seen enough.
#[test]
fn a_broken_pipe_is_no_error() {
    let folder = folder_with(SCENARIO);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .args(["list", "models"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// What is wrong, the words of the answer that matter, and where it points.
const WRONG: &[(&str, &str, &[&str])] = &[
    ("seed = 3", "sede = 3", &["scenario.toml:2:1", "unknown key `sede`", "did you mean `seed`?", "^^^^"]),
    ("count = 3", "count = 0", &["scenario.toml:13:9", "at least 1", "^"]),
    ("count = 3", "count = -2", &["scenario.toml:13:9", "expected a whole number, not below 0, got -2"]),
    ("gpu = \"h100-sxm\"", "gpu = \"h10-sxm\"", &["scenario.toml:15:7", "did you mean `h100-sxm`?"]),
    ("model = \"Llama-3.1-8B\"", "model = \"Lama-3.1-8B\"", &["scenario.toml:14:9", "did you mean"]),
    ("rate_per_s = 30", "rate_per_s = 0", &["arrivals.rate_per_s", "above 0"]),
    ("rate_per_s = 30", "rate_per_s = nan", &["arrivals.rate_per_s", "above 0"]),
    ("min = 50", "min = 5000", &["below min"]),
    ("min = 1, max = 60", "min = 0, max = 60", &["output_tokens.min", "at least 1"]),
    ("max_model_len = 4096", "max_model_len = 400000", &["131072 positions"]),
    ("max_model_len = 4096", "max_num_seqs = 0", &["scenario.toml:16", "at least 1"]),
    (
        "max_model_len = 4096",
        "max_num_seq = 8",
        &["unknown key `max_num_seq`", "did you mean `max_num_seqs`?"],
    ),
    ("max_model_len = 4096", "gpu_memory_utilization = 1.5", &["share above 0"]),
    ("max_model_len = 4096", "gpu_memory_utilization = 0.1", &["cannot start", "GiB"]),
    ("max_model_len = 4096", "num_gpu_blocks_override = 100", &["needs 8192 blocks"]),
    ("seed = 3", "policies = [\"round-robbin\"]", &["scenario.toml:2:13", "did you mean `round-robin`?"]),
    ("seed = 3", "resample = \"jitter\"", &["resample is for traces"]),
    ("seed = 3", "warmup_s = -1", &["warmup_s", "0 or a number above"]),
    ("seed = 3", "end = \"sometime\"", &["drain"]),
    ("seed = 3", "cooldown_s = 5", &["cooldown_s", "this one drains", "set end ="]),
    ("seed = 3", "end = 9\nwarmup_s = 4\ncooldown_s = 5", &["leave nothing"]),
    ("[[replicas]]", "[workload.prediction]\nsigma = 0.4\n[[replicas]]", &["needs a predictor"]),
    ("requests = 60", "requests = 60\ntrace = \"x.csv\"", &["belongs to a drawn workload"]),
    ("[workload]", "[workload\n", &["scenario.toml:5", "^"]),
    (
        "requests = 60",
        "requests = 60\nclasses = [{ name = \"a\", share = 0 }]",
        &["classes.0.share", "above 0"],
    ),
    (
        "requests = 60",
        "requests = 60\nclasses = [{ name = \"a\", share = 1 }, { name = \"a\", share = 1 }]",
        &["classes.1.name", "two classes \"a\""],
    ),
];

#[test]
fn every_mistake_is_answered_with_its_place() {
    for (from, to, answers) in WRONG {
        let text = SCENARIO.replacen(from, to, 1);
        assert_ne!(text, SCENARIO);
        let folder = folder_with(&text);
        let output = tailcast(&["compare", "scenario.toml"], folder.path());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{to}: {message}");
        assert_eq!(stdout(&output), "");
        for answer in *answers {
            assert!(message.contains(answer), "{to}: no {answer:?} in\n{message}");
        }
    }
}

#[test]
fn the_command_line_is_checked_too() {
    let folder = folder_with(SCENARIO);
    let cases: [(&[&str], &str); 6] = [
        (&["compare", "nowhere.toml"], "nowhere.toml"),
        (&["compare", "scenario.toml", "--policies", "least-requests"], "did you mean `least-request`?"),
        (&["compare", "scenario.toml", "--policies", "random,random"], "named twice"),
        (&["run", "scenario.toml", "--set", "workload"], "no `=`"),
        (&["run", "scenario.toml", "--threads", "0"], "--threads"),
        (&["init", "--vllm", "vllm serve m --max-num-sqs 3", "--gpu", "h100-sxm"], "--max-num-seqs"),
    ];
    for (arguments, answer) in cases {
        let output = tailcast(arguments, folder.path());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(answer), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_folder_that_is_no_result_is_not_touched() {
    let folder = folder_with(SCENARIO);
    let kept = folder.path().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("letter.txt"), "mine").unwrap();
    let output = tailcast(&["compare", "scenario.toml", "--out", "kept"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_to_string(kept.join("letter.txt")).unwrap(), "mine");
    // A result of ours is replaced whole, and nothing temporary stays behind.
    for _ in 0..2 {
        assert!(tailcast(&["compare", "scenario.toml", "--out", "result"], folder.path()).status.success());
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_prompt_that_is_too_long_is_rejected_and_counted() {
    let text =
        SCENARIO.replace("max_model_len = 4096", "max_model_len = 500").replace("repeat = 3", "repeat = 1");
    let folder = folder_with(&text);
    let output = tailcast(&["run", "scenario.toml", "--json", "--check"], folder.path());
    let value: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let run = &value["ranking"][0]["repetitions"][0];
    assert!(run["rejected"].as_u64().unwrap() > 0);
    assert_eq!(run["offered"], 60);
    assert!(run["e2e_p99_of_offered_ms"].is_null(), "a rejected request counts as infinite");
}

#[test]
fn a_trace_needs_something_that_varies() {
    let folder = TempDir::new().unwrap();
    let mut trace = fs::File::create(folder.path().join("t.csv")).unwrap();
    writeln!(trace, "arrived_s,prompt_tokens,output_tokens").unwrap();
    for number in 0..300 {
        writeln!(trace, "{}.5,{},20", number / 10, 100 + number).unwrap();
    }
    let replicas = &SCENARIO[SCENARIO.find("[[replicas]]").unwrap()..];
    let text = format!("repeat = 3\n[workload]\ntrace = \"t.csv\"\n{replicas}");
    fs::write(folder.path().join("scenario.toml"), &text).unwrap();
    let output = tailcast(&["run", "scenario.toml"], folder.path());
    assert!(stderr(&output).contains("say what varies"), "{}", stderr(&output));
    for resample in ["time-blocks", "jitter"] {
        let set = format!("resample={resample}");
        let output = tailcast(&["compare", "scenario.toml", "--set", &set], folder.path());
        assert!(stdout(&output).contains("group 1"), "{}", stderr(&output));
    }
}

/// A streamed trace gives the bytes of the whole one, and rounds that no memory holds are refused.
#[test]
fn a_trace_is_streamed_or_repeated() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/performance");
    let scenario = scenarios.join("azure-44m-streamed.toml").display().to_string();
    let folder = TempDir::new().unwrap();
    let run = |set: &str| tailcast(&["run", &scenario, "--json", "--set", set], folder.path());
    let (streamed, whole) = (run("workload.streamed=true"), run("workload.streamed=false"));
    assert!(stdout(&streamed).contains("\"offered\""), "{}", stderr(&streamed));
    assert_eq!(stdout(&streamed), stdout(&whole));
    let scenario = scenarios.join("azure-recorded.toml").display().to_string();
    let output = tailcast(&["run", &scenario, "--set", "workload.rounds=4000000000"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("workload.rounds") && stderr(&output).contains("help:"));
}

/// The founding example: fewest requests is the wrong choice where blocks run short, and costs next to nothing
/// where they do not; and a prediction can be wrong.
#[test]
fn the_founding_example_shows_what_it_says() {
    let e2e = |scenario: &str, name: &str| -> f64 {
        let folder = TempDir::new().unwrap();
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(scenario).display().to_string();
        let output = tailcast(&["compare", &path, "--json", "--quiet", "--out", "result"], folder.path());
        let value: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        let ranking = value["ranking"].as_array().unwrap();
        let contender = ranking.iter().find(|ranked| ranked["name"] == name).unwrap();
        contender["repetitions"][0]["e2e"]["mean_ms"].as_f64().unwrap()
    };
    let tight = e2e("two-replicas.toml", "least-request") / e2e("two-replicas.toml", "predicted-completion");
    assert!(tight > 10.0, "{tight}");
    let free = e2e("two-replicas.toml", "least-request, blocks free")
        / e2e("two-replicas.toml", "predicted-completion, blocks free");
    assert!(free < 1.1, "{free}");
    let guessed = e2e("prediction-loses.toml", "predicted-completion, lengths guessed")
        / e2e("prediction-loses.toml", "least-request");
    assert!(guessed > 2.0, "{guessed}");
}

#[test]
fn init_makes_a_scenario_that_runs() {
    let folder = TempDir::new().unwrap();
    let command =
        "vllm serve meta-llama/Llama-3.1-8B-Instruct --max-num-seqs 64 --port 8000 --max-model-len 8k";
    let output = tailcast(
        &["init", "--vllm", command, "--gpu", "h100-sxm", "--count", "2", "--out", "mine.toml"],
        folder.path(),
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let talk = stderr(&output);
    assert!(talk.contains("max_num_seqs") && talk.contains("irrelevant  --port 8000"), "{talk}");
    let run =
        tailcast(&["run", "mine.toml", "--set", "repeat=1", "--set", "workload.requests=50"], folder.path());
    assert!(run.status.success(), "{}", stderr(&run));
    let refused = tailcast(&["init", "--vllm", "vllm serve m -pp 2", "--gpu", "h100-sxm"], folder.path());
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("refused     -pp 2"), "{}", stderr(&refused));
}

#[test]
fn verify_schedule_tells_the_first_difference() {
    let folder = TempDir::new().unwrap();
    let header = r#"{"golden":1,"name":"made","config":{"vllm":"0.24.0","scheduler":"sync","policy":"fcfs","block_size":16,"num_gpu_blocks":100,"max_num_batched_tokens":64,"max_num_seqs":4,"max_model_len":200,"enable_prefix_caching":true,"long_prefill_token_threshold":0,"scheduler_reserve_full_isl":true,"watermark":0.0,"enable_chunked_prefill":true,"spec_k":0,"spec_eagle":false,"kv_load_delay":0,"arrivals":"step","a_ns":0,"b_ns":0,"c_ns":0,"block_ids":true},"requests":[{"id":0,"arr":0,"p":40,"o":3,"h":[[0,2]]}]}"#;
    fs::write(folder.path().join("header.jsonl"), header).unwrap();
    let emitted = tailcast(&["verify", "schedule", "--emit", "header.jsonl"], folder.path());
    let text = stdout(&emitted);
    assert_eq!(text.lines().count(), 5, "{text}{}", stderr(&emitted));
    fs::write(folder.path().join("whole.jsonl"), &text).unwrap();
    let same = tailcast(&["verify", "schedule", "whole.jsonl"], folder.path());
    assert!(
        stdout(&same).ends_with("1 files, 3 steps, 0 differences\n"),
        "{}{}",
        stdout(&same),
        stderr(&same)
    );
    assert!(same.status.success());
    fs::write(folder.path().join("wrong.jsonl"), text.replacen("\"free\":96", "\"free\":95", 1)).unwrap();
    let differs = tailcast(&["verify", "schedule", "wrong.jsonl"], folder.path());
    assert_eq!(differs.status.code(), Some(1), "{}", stdout(&differs));
    assert!(
        stdout(&differs).contains("step 0, field free\n    expected 95\n    got      96"),
        "{}",
        stdout(&differs)
    );
}

/// A model that the catalogue lacks comes from its config.json, and memory is told part by part.
#[test]
fn a_config_json_is_a_model_and_memory_is_explained() {
    let folder = folder_with(&SCENARIO.replace("\"Llama-3.1-8B\"", "\"config.json\""));
    let config = r#"{"architectures":["LlamaForCausalLM"],"hidden_size":4096,"intermediate_size":14336,
        "max_position_embeddings":131072,"num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,
        "vocab_size":128256}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    let by_path = tailcast(&["explain", "memory", "scenario.toml"], folder.path());
    assert_eq!(by_path.status.code(), Some(0), "{}", stderr(&by_path));
    let by_name = tailcast(
        &["explain", "memory", "scenario.toml", "--set", "replicas.model=llama-3.1-8b"],
        folder.path(),
    );
    let told = stdout(&by_name);
    for part in
        ["weights and rotary table", "activation peak", "CUDA graphs", "= KV cache", "blocks of 16 tokens"]
    {
        assert!(told.contains(part), "{told}");
    }
    let after_name = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(after_name(&stdout(&by_path)), after_name(&told));

    fs::write(folder.path().join("config.json"), config.replace("Llama", "Mamba")).unwrap();
    let refused = tailcast(&["run", "scenario.toml"], folder.path());
    assert_eq!(refused.status.code(), Some(2));
    let said = stderr(&refused);
    assert!(
        said.contains("architectures: MambaForCausalLM is not understood") && said.contains("scenario.toml:"),
        "{said}"
    );
}

/// The README's commands on the sample: a calibration, what its uncertainty does, and the fleet's own rows.
#[test]
fn a_calibration_is_made_used_and_drawn_from() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = folder_with(SCENARIO);
    let sample = root.join("traces/vllm-bench-sample.json");
    let server = root.join("scenarios/quickstart.toml");
    let (sample, server) = (sample.to_str().unwrap(), server.to_str().unwrap());
    let calibrate = tailcast(&["calibrate", sample, "--scenario", server], folder.path());
    assert_eq!(calibrate.status.code(), Some(0), "{}", stderr(&calibrate));
    for part in ["matrix_products", "learnt from the data", "errors of what was kept aside", "front end"] {
        assert!(stdout(&calibrate).contains(part), "{part}: {}", stdout(&calibrate));
    }
    let with = ["--set", "replicas.step_time.calibration=calibration.toml"];
    let run = |more: &[&str]| {
        let arguments = [&["run", "scenario.toml"], with.as_slice(), more].concat();
        tailcast(&arguments, folder.path())
    };
    let drawn = run(&["--uncertainty", "5"]);
    assert!(stdout(&drawn).contains("of 5 models drawn from the calibration"), "{}", stdout(&drawn));
    let one = run(&["--uncertainty", "5", "--threads", "1"]);
    assert_eq!(stdout(&one), stdout(&drawn), "the same for any number of threads");
    let json = run(&["--uncertainty", "5", "--json"]);
    assert!(stdout(&json).contains("\"draws\": 5"), "{}", stdout(&json));

    // The resolved scenario names the calibration from where it lies.
    let out = run(&["--out", "results"]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    let again = tailcast(&["run", "results/scenario.toml"], folder.path());
    assert_eq!(stdout(&again), stdout(&out));

    let without = tailcast(&["run", "scenario.toml", "--uncertainty", "5"], folder.path());
    assert_eq!(without.status.code(), Some(2));
    assert!(stderr(&without).contains("no replica rests on a calibration"), "{}", stderr(&without));
    let unknown = tailcast(&["calibrate", sample], folder.path());
    assert!(stderr(&unknown).contains("describe it with --scenario FILE"), "{}", stderr(&unknown));
}

#[test]
fn a_fleet_is_held_against_its_rows() {
    let folder = folder_with(&SCENARIO.replace("prefixes = { groups = 3, tokens = 64 }\n", ""));
    let run = tailcast(&["run", "scenario.toml", "--set", "repeat=1", "--out", "run"], folder.path());
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let verify = |more: &[&str]| {
        let arguments =
            [["verify", "latency", "--scenario", "scenario.toml", "--max-error", "1%"].as_slice(), more]
                .concat();
        tailcast(&arguments, folder.path())
    };
    let same = verify(&["--measured", "run/requests.csv"]);
    assert_eq!(same.status.code(), Some(0), "{}{}", stdout(&same), stderr(&same));
    let other = verify(&["--measured", "run/requests.csv", "--set", "network.frontend_ms=50"]);
    assert_eq!(other.status.code(), Some(1), "{}", stdout(&other));
    let missing = verify(&["--measured", "none.csv"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("none.csv"), "{}", stderr(&missing));
}

/// What would be replaced by its own result stays, lists without a name are no lists, and nobody waits for a hundred million
/// repetitions.
#[test]
fn what_cannot_be_meant_is_refused() {
    let folder = folder_with(SCENARIO);
    let trace = "arrived_s,prompt_tokens,output_tokens\n0,10,20\n1,10,4000000000\n";
    fs::write(folder.path().join("trace.csv"), trace).unwrap();
    let refused = |arguments: &[&str], why: &str| {
        let output = tailcast(arguments, folder.path());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(why), "{arguments:?}: {}", stderr(&output));
    };
    for command in ["compare", "regret", "capacity", "sweep"] {
        let over: &[&str] = if command == "sweep" { &["--over", "seed=1,2"] } else { &[] };
        refused(&[&[command, "scenario.toml", "--policies", ","], over].concat(), "no policy is named");
    }
    refused(&["trace", "convert", "trace.csv", "--out", "./trace.csv"], "is what is read");
    refused(&["trace", "generate", "scenario.toml", "--out", "scenario.toml"], "is what is read");
    assert_eq!(fs::read_to_string(folder.path().join("trace.csv")).unwrap(), trace);
    refused(&["run", "scenario.toml", "--set", "repeat=100000000"], "expected 1 to 10000, got 100000000");
    let long = "[workload]\ntrace = \"trace.csv\"\n[[replicas]]\ncount = 1\nmodel = \"llama-3.1-8b\"\ngpu = \"a100-80-sxm\"\n\
                max_model_len = 500\n";
    fs::write(folder.path().join("long.toml"), long).unwrap();
    let output = tailcast(&["run", "long.toml"], folder.path());
    let told = "1 request asks for more tokens than max_model_len = 500 leaves, and ends there";
    assert!(stdout(&output).contains(told), "{}{}", stdout(&output), stderr(&output));
}
