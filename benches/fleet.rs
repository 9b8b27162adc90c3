//! Whole simulations, timed: requests and engine steps a second, simulated seconds a second, peak memory.
//!
//! `cargo bench --bench fleet -- [--traces DIR] [--runs N] [--threads N] [NAME...]`
//!
//! Each case is a scenario of `scenarios/performance/`, run in a process of its own so that its peak memory can be
//! told. Requests are made ready first; what is timed is the simulation with its statistics. The median of N
//! runs (5 unless given) on one thread (unless given) is printed. DIR holds the traces of others under the names that the README gives;
//! without it the samples of `traces/` stand for them, which is another load.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a bench measures and prints")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use tailcast::scenario::{Loaded, Scenario, Workload};
use tailcast::study::run::{Keep, Traces, jobs, run};

/// A row of the table.
struct Case {
    name: &'static str,
    scenario: &'static str,
    /// Laid over the scenario.
    set: &'static [&'static str],
    /// The trace it is meant for, by its file name; none if it is drawn.
    trace: Option<&'static str>,
}

const AZURE: Option<&str> = Some("AzureLLMInferenceTrace_conv.csv.gz");
const MOONCAKE: Option<&str> = Some("conversation_trace.jsonl.gz");

const CASES: &[Case] = &[
    Case { name: "azure-1m-round-robin", scenario: "azure-1m", set: &[], trace: AZURE },
    Case {
        name: "azure-1m-least-request",
        scenario: "azure-1m",
        set: &["router.policy=least-request"],
        trace: AZURE,
    },
    Case { name: "azure-1m-64-least-request", scenario: "azure-1m-64", set: &[], trace: AZURE },
    Case { name: "azure-1m-64-predicted", scenario: "azure-1m-64-predicted", set: &[], trace: AZURE },
    Case { name: "poisson-10k", scenario: "poisson-10k", set: &[], trace: None },
    Case { name: "azure-recorded", scenario: "azure-recorded", set: &[], trace: AZURE },
    Case { name: "mooncake-200k", scenario: "mooncake-200k", set: &[], trace: MOONCAKE },
    // What a request costs as its number, its output or the fleet grows tenfold.
    Case { name: "poisson-100k", scenario: "poisson-10k", set: &["workload.requests=100000"], trace: None },
    Case {
        name: "poisson-10k-outputs-x10",
        scenario: "poisson-10k",
        set: &["workload.output_tokens.tokens=1280", "workload.rate_scale=0.1"],
        trace: None,
    },
    Case {
        name: "poisson-10k-uncached",
        scenario: "poisson-10k",
        set: &["replicas.0.enable_prefix_caching=false"],
        trace: None,
    },
    Case {
        name: "poisson-10k-uncached-outputs-x10",
        scenario: "poisson-10k",
        set: &[
            "replicas.0.enable_prefix_caching=false",
            "workload.output_tokens.tokens=1280",
            "workload.rate_scale=0.1",
        ],
        trace: None,
    },
    Case {
        name: "poisson-100k-replicas-x10",
        scenario: "poisson-10k",
        set: &["workload.requests=100000", "workload.rate_scale=10", "replicas.0.count=40"],
        trace: None,
    },
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut traces, mut runs, mut threads, mut one, mut names) = (None, 5, 1, None, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--traces" => traces = arguments.next().map(PathBuf::from),
            "--runs" => runs = arguments.next().and_then(|runs| runs.parse().ok()).unwrap_or(runs).max(1),
            "--threads" => {
                threads = arguments.next().and_then(|threads| threads.parse().ok()).unwrap_or(threads).max(1);
            }
            "--one" => one = arguments.next(),
            name => names.push(name.to_owned()),
        }
    }
    if let Some(name) = one {
        let case = CASES.iter().find(|case| case.name == name).expect("a case of the list");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| measure(case, traces.as_deref(), runs));
        return ExitCode::SUCCESS;
    }
    println!(
        "{:34} {:>9} {:>10} {:>12} {:>14} {:>10} {:>9}",
        "case", "ms", "requests/s", "steps/s", "simulated s/s", "requests", "peak MiB"
    );
    let this = std::env::current_exe().expect("the path of this program");
    for case in
        CASES.iter().filter(|case| names.is_empty() || names.iter().any(|name| case.name.contains(name)))
    {
        let mut child = Command::new(&this);
        child.args(["--one", case.name, "--runs", &runs.to_string(), "--threads", &threads.to_string()]);
        if let Some(traces) = &traces {
            child.arg("--traces").arg(traces);
        }
        if !child.status().is_ok_and(|status| status.success()) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(case: &Case, traces: Option<&Path>, runs: usize) {
    let scenario = load(case, traces);
    let trace = Traces::default().of(&scenario.workload).expect("a readable trace");
    let jobs: Arc<[_]> = jobs(&scenario, trace.as_deref(), 0).expect("requests").into();
    drop(trace);
    let mut seconds = Vec::new();
    let (mut steps, mut simulated_s) = (0, 0.0);
    for _ in 0..runs {
        let begin = Instant::now();
        let result = run(&scenario, &jobs, 0, false, Keep::Nothing).expect("a scenario that runs");
        seconds.push(begin.elapsed().as_secs_f64());
        steps = result.summary.steps;
        simulated_s = result.summary.span_s;
    }
    seconds.sort_by(f64::total_cmp);
    let median_s = seconds[seconds.len() / 2];
    println!(
        "{:34} {:>9.2} {:>10.0} {:>12.0} {:>14.0} {:>10} {:>9.0}",
        case.name,
        median_s * 1e3,
        jobs.len() as f64 / median_s,
        steps as f64 / median_s,
        simulated_s / median_s,
        jobs.len(),
        peak_mib(),
    );
}

fn load(case: &Case, traces: Option<&Path>) -> Scenario {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("scenarios/performance").join(case.scenario).with_extension("toml");
    let set: Vec<String> = case.set.iter().map(|&assignment| assignment.to_owned()).collect();
    let mut scenario =
        Loaded::read(&path, &set).and_then(|loaded| loaded.resolve()).expect("a valid scenario");
    if let (Workload::Trace { path, .. }, Some(folder), Some(name)) =
        (&mut scenario.workload, traces, case.trace)
    {
        *path = folder.join(name);
    }
    scenario
}

/// The most memory this process ever held; 0 where the system does not say.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
