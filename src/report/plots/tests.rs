//! The plots as a caller sees them: labels and units, size, sameness, odd inputs.

use super::*;
use crate::metrics::TimelinePoint;

/// Latencies with a heavy tail, without a random generator.
fn heavy_tail(count: usize, median_ms: f64, weight: f64) -> Vec<f64> {
    let mut values_ms: Vec<f64> = (0..count)
        .map(|index| {
            let share = (index as f64 + 0.5) / count as f64;
            median_ms * (share / (1.0 - share)).powf(weight)
        })
        .collect();
    values_ms.sort_unstable_by(f64::total_cmp);
    values_ms
}

fn curve(label: &str, values_ms: Vec<f64>, lost: u64) -> Curve {
    Curve { label: label.to_string(), values_ms, lost }
}

fn bar(label: &str, p99_ms: Option<f64>, p99_interval_ms: Option<(f64, f64)>) -> TailBar {
    TailBar { label: label.to_string(), p50_ms: Some(180.0), p90_ms: Some(700.0), p99_ms, p99_interval_ms }
}

fn replica(index: usize, points: usize) -> ReplicaLine {
    let point = |number: usize| {
        let wave = (number as f64 / 30.0 + index as f64).sin().abs();
        let ripple = ((number * 7_919 + index * 104_729) % 97) as f64 / 97.0;
        TimelinePoint {
            running: (20.0 + 60.0 * wave + 20.0 * ripple) as u32,
            waiting: (40.0 * (wave + 0.3 * ripple - 0.8).max(0.0)) as u32,
            kv_blocks_used: (9_000.0 * (0.2 + 0.5 * wave + 0.1 * ripple)) as u32,
            steps: 3,
        }
    };
    let points = (0..points).map(point).collect();
    ReplicaLine { label: format!("replica {index}"), interval_s: 0.4, points, kv_blocks_usable: 9_000 }
}

fn size_of(png: &[u8]) -> (u32, u32) {
    assert_eq!(png[..8], png::SIGNATURE);
    let number = |from: usize| u32::from_be_bytes(png[from..from + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn a_curve_plot_says_what_it_shows() {
    let curves = [
        curve("round_robin", heavy_tail(5_000, 120.0, 0.5), 0),
        curve("least <request> & more", heavy_tail(2_000, 90.0, 0.4), 100),
    ];
    let plot = latency_cdf("cdf_ttft", "Time to first token", "time to first token", &curves).unwrap();
    assert_eq!(plot.name, "cdf_ttft");
    assert_eq!(size_of(&plot.png), (1200, 750));
    for text in
        ["round_robin (P99 ", "least &lt;request&gt; &amp; more (P99 not finite)", "100 ms", "1 s", "99 %"]
    {
        assert!(plot.svg.contains(text), "{text}");
    }
    assert!(plot.svg.starts_with("<svg width=\"1200\" height=\"750\" viewBox=\"0 0 3600 2250\""));
    assert!(plot.svg.contains("DejaVu Sans, Verdana, sans-serif"));
    let again = latency_cdf("cdf_ttft", "Time to first token", "time to first token", &curves).unwrap();
    assert_eq!(plot, again);
}

#[test]
fn bars_bear_numbers_and_mark_what_is_infinite() {
    let bars = [
        bar("least_request", Some(1_240.0), Some((1_100.0, 1_400.0))),
        bar("random", None, Some((2_000.0, f64::INFINITY))),
    ];
    let plot = tail_bars("tail", "Tail latency", "end-to-end latency", &bars).unwrap();
    assert_eq!(size_of(&plot.png), (1200, 750));
    for text in ["least_request", "random", "1.24 s", "180 ms", "∞ not finite", "interval of the P99", "1 s"]
    {
        assert!(plot.svg.contains(text), "{text}");
    }
    assert_eq!(plot, tail_bars("tail", "Tail latency", "end-to-end latency", &bars).unwrap());
}

#[test]
fn replicas_get_lines_or_a_band() {
    let few: Vec<ReplicaLine> = (0..3).map(|index| replica(index, 300)).collect();
    let plot = replicas_over_time("replicas", "Replicas", &few).unwrap();
    assert_eq!(size_of(&plot.png), (1200, 750));
    for text in [
        "replica 2",
        "running requests",
        "waiting requests",
        "KV cache in use (%)",
        "time (s); peaks of every 0.8 s",
        "50 %",
    ] {
        assert!(plot.svg.contains(text), "{text}");
    }
    let many: Vec<ReplicaLine> = (0..200).map(|index| replica(index, 300 - index)).collect();
    let plot = replicas_over_time("replicas", "Replicas", &many).unwrap();
    for text in ["median of 200 replicas", "P10–P90", "worst: replica "] {
        assert!(plot.svg.contains(text), "{text}");
    }
    assert_eq!(plot, replicas_over_time("replicas", "Replicas", &many).unwrap());
}

#[test]
fn odd_curves_are_drawn() {
    let long = "a_policy_whose_name_has_exactly_40_signs";
    let odd: Vec<Vec<Curve>> = vec![
        vec![],
        vec![curve("", vec![], 0)],
        vec![curve("all lost", vec![], 12)],
        vec![curve("one", vec![5.0], 0)],
        vec![curve("equal", vec![5.0; 1_000], 0), curve("equal too", vec![5.0; 1_000], 3)],
        vec![curve("zeros", vec![0.0; 4], 0)],
        vec![curve("zero and more", vec![0.0, 0.0, 1.0, 1_000.0], 0)],
        vec![curve("infinite", vec![f64::INFINITY; 3], 0)],
        vec![curve("less than a picosecond", vec![1e-320; 3], 0)],
        vec![curve("tiny", vec![1e-300, 1.0, 1e300], u64::MAX)],
        (0..12).map(|index| curve(long, heavy_tail(50, 10.0 + f64::from(index), 0.2), 0)).collect(),
    ];
    for curves in odd {
        let plot = latency_cdf("odd", &"long title ".repeat(30), "latency\u{0}", &curves).unwrap();
        assert!(plot.svg.ends_with("</svg>\n") && !plot.svg.contains('\u{0}'));
    }
}

#[test]
fn odd_bars_and_replicas_are_drawn() {
    let nothing = TailBar::default();
    let backwards = bar("backwards", Some(f64::INFINITY), Some((9.0, 1.0)));
    let zero = TailBar { p50_ms: Some(0.0), p90_ms: Some(0.0), p99_ms: Some(0.0), ..TailBar::default() };
    for bars in [vec![], vec![nothing], vec![backwards], vec![zero; 40]] {
        let height_px = size_of(&tail_bars("odd", "", "", &bars).unwrap().png).1;
        assert!(height_px >= 750);
    }
    let idle = ReplicaLine { points: vec![TimelinePoint::default(); 4], ..ReplicaLine::default() };
    let endless = ReplicaLine { interval_s: f64::INFINITY, ..replica(0, 3) };
    let coarse = ReplicaLine { interval_s: 60.0, ..replica(1, 2) };
    let brief = ReplicaLine { interval_s: 1e-320, ..replica(1, 2) };
    let silent = ReplicaLine::default();
    for replicas in [
        vec![],
        vec![silent],
        vec![brief],
        vec![idle.clone()],
        vec![idle, endless, coarse, replica(2, 2_000)],
    ] {
        replicas_over_time("odd", "", &replicas).unwrap();
    }
}

#[test]
fn labels_of_forty_letters_are_whole() {
    let label = "least_request with a staleness of 250 ms";
    assert_eq!(label.len(), 40);
    let curves: Vec<Curve> = (0..12).map(|_| curve(label, vec![1.0, 2.0], 0)).collect();
    let replicas: Vec<ReplicaLine> =
        (0..16).map(|index| ReplicaLine { label: label.to_string(), ..replica(index, 9) }).collect();
    let plots = [
        latency_cdf("cdf", "", "", &curves).unwrap(),
        tail_bars("bars", "", "", &vec![bar(label, Some(9.0), None); 12]).unwrap(),
        replicas_over_time("replicas", "", &replicas).unwrap(),
    ];
    for (plot, times) in plots.iter().zip([12, 12, 16]) {
        assert_eq!(plot.svg.matches(label).count(), times, "{}", plot.name);
    }
}
