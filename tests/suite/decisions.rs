//! From numbers to a decision: capacity, sweeps, and comparisons that go on until they are decided.

use std::fs;
use std::path::Path;

use crate::cli::{SCENARIO, folder_with, stderr, stdout, tailcast};

pub(crate) fn run(folder: &Path, arguments: &[&str]) -> String {
    let output = tailcast(arguments, folder);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

pub(crate) fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = tailcast(arguments, folder);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stdout(&output));
    stderr(&output)
}

/// The least fleet holds, one replica fewer does not, and one that may be down needs one more.
#[test]
fn capacity_is_the_least_that_holds() {
    let folder = folder_with(SCENARIO);
    let json = |extra: &[&str]| -> serde_json::Value {
        let fixed = [
            "capacity",
            "scenario.toml",
            "--set",
            "workload.requests=400",
            "--set",
            "workload.arrivals.rate_per_s=120",
        ];
        let more = ["--slo", "ttft.p95=60", "--replicas", "1..64", "--json", "--quiet"];
        serde_json::from_str(&run(folder.path(), &[&fixed[..], &more[..], extra].concat())).unwrap()
    };
    let whole = json(&[]);
    let search = &whole["searches"][0];
    let least = search["answer"]["replicas"].as_u64().unwrap();
    let verdict = |replicas: u64| {
        let walked = search["walked"].as_array().unwrap();
        let point = walked.iter().find(|point| point["replicas"] == replicas);
        point.map(|point| point["verdict"].as_str().unwrap().to_string())
    };
    assert!(least > 1, "{search}");
    assert_eq!(verdict(least).as_deref(), Some("holds"));
    assert!(["fails", "open"].contains(&verdict(least - 1).unwrap().as_str()));
    assert_eq!(json(&["--down", "1"])["searches"][0]["answer"]["replicas"], least + 1);
    // Sure of more takes no less.
    let surer = json(&["--confidence", "0.999"])["searches"][0]["answer"]["replicas"].as_u64().unwrap();
    assert!(surer >= least);
}

/// Of two kinds at their prices: no mix holds that is cheaper than the answer, as all mixes one by one say.
#[test]
fn the_cheapest_mix_is_the_cheapest_of_all() {
    let folder = folder_with(&SCENARIO.replace(
        "count = 3",
        "count = 1\nmodel = \"Llama-3.1-8B\"\ngpu = \"a100-80-sxm\"\nmax_model_len = 4096\n[[replicas]]\ncount = 1",
    ));
    let fixed = [
        "capacity",
        "scenario.toml",
        "--set",
        "workload.requests=400",
        "--set",
        "workload.arrivals.rate_per_s=180",
    ];
    let more = [
        "--slo",
        "ttft.p95=300",
        "--policies",
        "predicted-completion",
        "--replicas",
        "1..40",
        "--json",
        "--quiet",
    ];
    let whole: serde_json::Value =
        serde_json::from_str(&run(folder.path(), &[&fixed[..], &more[..]].concat())).unwrap();
    let searches = whole["searches"].as_array().unwrap();
    assert_eq!(searches.len(), 3);
    let usd = |search: &serde_json::Value| search["answer"]["usd_per_hour"].as_f64();
    let alone: Vec<u64> =
        searches[..2].iter().map(|one| one["answer"]["replicas"].as_u64().unwrap()).collect();
    let cheapest_alone = usd(&searches[0]).unwrap().min(usd(&searches[1]).unwrap());
    let mix = &searches[2];
    assert_eq!(mix["is_mix"], true);
    let best = usd(mix).expect("a policy that knows what each card can do makes use of both");
    assert!(best < cheapest_alone);
    let (first_usd, second_usd) =
        (usd(&searches[0]).unwrap() / alone[0] as f64, usd(&searches[1]).unwrap() / alone[1] as f64);
    for first in 1..alone[0] {
        for second in 1..alone[1] {
            if first as f64 * first_usd + second as f64 * second_usd >= best - 1e-9 {
                continue;
            }
            // The very fleet, with the objective as a limit of good requests.
            let sizes = [format!("replicas.0.count={first}"), format!("replicas.1.count={second}")];
            let limits = [
                "--set",
                "slo.goodput.ttft_ms=300",
                "--set",
                "repeat=5",
                "--set",
                "router.policy=predicted-completion",
                "--json",
                "--quiet",
            ];
            let arguments =
                [&["run", "scenario.toml", "--set", &sizes[0], "--set", &sizes[1]][..], &fixed[2..], &limits];
            let one: serde_json::Value =
                serde_json::from_str(&run(folder.path(), &arguments.concat())).unwrap();
            let repetitions = one["ranking"][0]["repetitions"].as_array().unwrap();
            let share =
                repetitions.iter().map(|one| one["goodput_share"].as_f64().unwrap()).sum::<f64>() / 5.0;
            // A mean share above the objective may still be open, but not by far.
            assert!(share < 0.97, "{first} + {second}: {share}");
        }
    }
}

/// The search for the highest rate that holds this objective.
fn rate_search(slo: &str) -> serde_json::Value {
    let folder = folder_with(SCENARIO);
    let fixed =
        ["capacity", "scenario.toml", "--rate", "--set", "workload.requests=300", "--json", "--slo", slo];
    let mut whole: serde_json::Value = serde_json::from_str(&run(folder.path(), &fixed)).unwrap();
    whole["searches"][0].take()
}

#[test]
fn a_rate_is_found_to_a_percent() {
    let search = rate_search("e2e.p90=700");
    let best = search["answer"]["rate_factor"].as_f64().unwrap();
    let next =
        search["walked"].as_array().unwrap().iter().map(|point| point["rate_factor"].as_f64().unwrap());
    let above = next.filter(|factor| *factor > best).fold(f64::INFINITY, f64::min);
    assert!(above / best <= 1.01 + 1e-9, "{best} {above}");
}

#[test]
fn what_capacity_cannot_search_is_refused() {
    let folder = folder_with(SCENARIO);
    let of = |extra: &[&str]| refused(folder.path(), &[&["capacity", "scenario.toml"][..], extra].concat());
    assert!(of(&[]).contains("there is no objective"));
    assert!(of(&["--slo", "ttft.99=5"]).contains("LATENCY.pN=MS"));
    assert!(of(&["--slo", "ttft.p100=5"]).contains("below 100"));
    assert!(of(&["--slo", "ttft.p99=5", "--replicas", "0..4"]).contains("FEWEST..MOST"));
    assert!(of(&["--slo", "ttft.p99=5", "--replicas", "1..4", "--down", "4"]).contains("at most 3"));
    assert!(of(&["--slo", "ttft.p99=5", "--confidence", "1"]).contains("below 1"));
    let nothing = of(&["--slo", "ttft.p99=5", "--set", "warmup_s=1000"]);
    assert!(nothing.contains("every request is sent within the warm-up"), "{nothing}");
    assert!(of(&["--slo", "ttft.p99=5", "--policies", "all,least"]).contains("unknown policy"));
}

const SWEEP: [&str; 10] = [
    "sweep",
    "scenario.toml",
    "--over",
    "workload.arrivals.rate_per_s=20..60/5",
    "--over",
    "replicas.count=1,2",
    "--policies",
    "least-request,round-robin",
    "--quiet",
    "--out",
];

fn sweep(folder: &Path, out: &str, extra: &[&str]) -> String {
    run(folder, &[&SWEEP[..], &[out], extra].concat())
}

fn table(folder: &Path, out: &str) -> String {
    fs::read_to_string(folder.join(out).join("sweep.csv")).unwrap()
}

/// What is done is not done again; what is missing is; the bytes are those of one run, by one machine or by three.
#[test]
fn a_sweep_goes_on_where_it_was_stopped() {
    let folder = folder_with(SCENARIO);
    let at = folder.path();
    let shown = sweep(at, "whole", &["--threads", "1"]);
    let whole = table(at, "whole");
    // A head, ten cells of two policies and three repetitions.
    assert_eq!(whole.lines().count(), 1 + 10 * 2 * 3);
    sweep(at, "stopped", &[]);
    for lost in ["cells/000003.csv", "cells/000008.csv", "sweep.csv", "load-curve.svg"] {
        fs::remove_file(at.join("stopped").join(lost)).unwrap();
    }
    // What a killed run may leave.
    fs::write(at.join("stopped/cells/.tailcast-x1"), "half a").unwrap();
    let kept = at.join("stopped/cells/000004.csv");
    let made = fs::metadata(&kept).unwrap().modified().unwrap();
    assert_eq!(sweep(at, "stopped", &[]), shown);
    assert_eq!(table(at, "stopped"), whole);
    assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), made);
    for part in ["1/3", "2/3", "3/3"] {
        sweep(at, &format!("part{}", &part[..1]), &["--shard", part]);
    }
    assert!(!at.join("part1/sweep.csv").exists());
    let merged = run(at, &["merge", "part1", "part2", "part3", "--out", "merged"]);
    assert_eq!(merged, shown);
    for file in ["sweep.csv", "load-curve.svg", "load-curve.png", "cost-front.svg"] {
        assert_eq!(
            fs::read(at.join("merged").join(file)).unwrap(),
            fs::read(at.join("whole").join(file)).unwrap(),
            "{file}"
        );
    }
    let missing = refused(at, &["merge", "part1", "part3", "--out", "less"]);
    assert!(missing.contains("cell 1 is in none of the shards"), "{missing}");
    // A cell that was changed, cut off, emptied or taken from another place is no cell.
    let cell = at.join("part2/cells/000001.csv");
    let made = fs::read_to_string(&cell).unwrap();
    let second = made.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>();
    let other = fs::read_to_string(at.join("part2/cells/000004.csv")).unwrap();
    for (place, wrong) in
        ["", &second, &other, made.trim_end(), &made.replace("20", "21")].into_iter().enumerate()
    {
        fs::write(&cell, wrong).unwrap();
        let out = format!("damaged{place}");
        let told = refused(at, &["merge", "part1", "part2", "part3", "--out", &out]);
        assert!(
            told.contains("part2/cells/000001.csv: this is not what the sweep wrote there for cell 1"),
            "{told}"
        );
        assert!(!at.join(out).join("sweep.csv").exists());
    }
    fs::write(kept, "").unwrap();
    assert!(refused(at, &[&SWEEP[..], &["stopped"]].concat()).contains("000004.csv: this is not what"));
}

/// A result takes the place of a result, never that of what somebody has put there.
#[test]
fn files_of_others_are_not_replaced() {
    let folder = folder_with(SCENARIO);
    let at = folder.path();
    let again = ["run", "scenario.toml", "--quiet", "--out", "one"];
    run(at, &again);
    run(at, &["report", "one", "--quiet"]);
    run(at, &["export", "parquet", "one"]);
    run(at, &again);
    assert!(!at.join("one/report.html").exists());
    for name in ["notes.txt", "mine.png", "sub"] {
        let mine = at.join("one").join(name);
        if name == "sub" {
            fs::create_dir(&mine).unwrap()
        } else {
            fs::write(&mine, "mine").unwrap()
        }
        let told = refused(at, &again);
        assert!(told.contains(&format!("`{name}` in it is no file of a result")), "{told}");
        assert!(mine.exists() && at.join("one/summary.json").exists());
        if name == "sub" { fs::remove_dir(&mine).unwrap() } else { fs::remove_file(&mine).unwrap() }
    }
    run(at, &again);
}

#[test]
fn a_sweep_says_what_is_wrong_before_it_runs() {
    let folder = folder_with(SCENARIO);
    let at = folder.path();
    sweep(at, "out", &[]);
    let other = refused(at, &["sweep", "scenario.toml", "--over", "replicas.count=1,2", "--out", "out"]);
    assert!(other.contains("holds another sweep"), "{other}");
    let wrong = refused(at, &["sweep", "scenario.toml", "--over", "replicas.count=1,0", "--out", "new"]);
    assert!(wrong.contains("cell 1, replicas.count=0:"), "{wrong}");
    assert!(
        refused(at, &["sweep", "scenario.toml", "--over", "replicas.cuont=1,2", "--out", "new2"])
            .contains("cuont")
    );
    assert!(
        refused(at, &["sweep", "scenario.toml", "--over", "replicas.count=1..4", "--out", "new3"])
            .contains("LOW..HIGH/COUNT")
    );
    let drawn = [
        "sweep",
        "scenario.toml",
        "--over",
        "replicas.count=1..4",
        "--latin-hypercube",
        "4",
        "--out",
        "drawn",
        "--quiet",
    ];
    run(at, &drawn);
    assert_eq!(table(at, "drawn").lines().count(), 1 + 4 * 3);
}

/// However short a run: what the fleet cannot bear, it does not hold. A rate that would be higher makes the run no shorter.
#[test]
fn an_overloaded_fleet_holds_nothing() {
    let search = rate_search("e2e.p50=100000");
    assert!(search["answer"]["load"].as_f64().unwrap() < 1.1, "{search}");
    let overloaded = |point: &&serde_json::Value| point["overloaded"] == true;
    let walked = search["walked"].as_array().unwrap();
    assert!(
        walked
            .iter()
            .filter(overloaded)
            .all(|point| point["load"].as_f64().unwrap() > 1.0 && point["verdict"] == "fails")
    );
    assert!(walked.iter().any(|point| point["overloaded"] == true), "{search}");
}

/// What a comparison took to be decided is what its scenario says.
#[test]
fn a_decided_comparison_runs_again_to_the_same_bytes() {
    let folder = folder_with(SCENARIO);
    let at = folder.path();
    run(
        at,
        &[
            "compare",
            "scenario.toml",
            "--policies",
            "random,round-robin",
            "--until-decided=8",
            "--out",
            "one",
            "--quiet",
        ],
    );
    let again = run(at, &["compare", "one/scenario.toml", "--out", "two", "--quiet"]);
    assert_eq!(
        fs::read(at.join("one/requests.csv")).unwrap(),
        fs::read(at.join("two/requests.csv")).unwrap()
    );
    let of = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(at.join(name).join("summary.json")).unwrap()).unwrap()
    };
    assert_eq!(of("one")["ranking"][0]["repetitions"], of("two")["ranking"][0]["repetitions"], "{again}");
}

#[test]
fn the_most_repetitions_are_the_most() {
    let folder = folder_with(SCENARIO);
    let few = [
        "compare",
        "scenario.toml",
        "--set",
        "repeat=9",
        "--until-decided=8",
        "--policies",
        "random,round-robin",
    ];
    let told = refused(folder.path(), &few);
    assert!(
        told.contains("--until-decided: expected at least the 9 repetitions of the scenario, got 8"),
        "{told}"
    );
}

/// Policies that decide alike are decided at once, however alike; one that is far behind is told from the first.
#[test]
fn a_comparison_can_go_on_until_it_is_decided() {
    let folder = folder_with(SCENARIO);
    let arguments = |policies: &'static str, most: &'static str| {
        [
            "compare",
            "scenario.toml",
            "--policies",
            policies,
            most,
            "--step-time-error",
            "20",
            "--json",
            "--quiet",
        ]
    };
    let json = |policies, most| -> serde_json::Value {
        serde_json::from_str(&run(folder.path(), &arguments(policies, most))).unwrap()
    };
    let alike = json("round-robin,weighted-round-robin", "--until-decided");
    assert_eq!((alike["repetitions"].as_u64(), alike["looks"].as_u64()), (Some(5), Some(1)));
    assert_eq!(alike["decided"], true);
    assert_eq!(alike["stability"]["shifted"].as_array().unwrap().len(), 2);
    let open = json("random,power-of-two", "--until-decided=8");
    assert!(open["repetitions"].as_u64().unwrap() <= 8);
    let level = open["level"].as_f64().unwrap();
    assert!(level > 0.95 && level < 1.0);
    let second = &open["ranking"][1];
    let behind = &second["behind_first_ms"];
    assert!((0.0..=1.0).contains(&behind["negative_probability"].as_f64().unwrap()));
    let own = &second["intervals_ms"]["ttft"]["p50"];
    assert!(own["low"].as_f64().unwrap() < own["high"].as_f64().unwrap());
    // 60 requests in a handful of repetitions have no P99.9.
    assert!(second["intervals_ms"]["e2e"]["p99_9"].is_null());
}
