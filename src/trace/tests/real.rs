//! The published traces, where they are at hand, against the numbers known of them.

use std::path::PathBuf;

use crate::trace::{Trace, TraceInfo, read};

/// Reads the shared trace `name`, if it is here.
fn shared(name: &str) -> Option<Trace> {
    shared_path(name).map(|path| read(&path, None).unwrap())
}

/// Where the shared trace `name` lies, or a message that it is not here.
#[expect(clippy::disallowed_methods, reason = "what is at hand is told by the environment")]
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
fn shared_path(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/traces").join(name);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("TAILCAST_REQUIRE_SHARED").is_ok_and(|value| value == "1");
    assert!(!required, "TAILCAST_REQUIRE_SHARED=1, but there is no {}", path.display());
    eprintln!("skipped: {} is not here", path.display());
    None
}

fn rounded(value: f64, digits: usize) -> String {
    format!("{value:.digits$}")
}

#[test]
fn azure_2023_code() {
    let Some(trace) = shared("azure_llm_2023/AzureLLMInferenceTrace_code.csv.gz") else { return };
    assert_eq!(trace.format, "azure-2023");
    assert!(trace.notes.lines().is_empty());
    let info = TraceInfo::of(&trace);
    assert_eq!((info.requests, info.span_s), (8_819, 3435.948056));
    assert_eq!((info.peak_1s_requests, info.peak_60s_requests, info.least_60s_requests), (67, 632, Some(0)));
    assert_eq!(rounded(info.gap_cv.unwrap(), 2), "13.15");
    assert_eq!(rounded(info.dispersion_1s.unwrap(), 2), "13.18");
    assert_eq!((info.prompt_tokens.total, info.output_tokens.total), (18_059_974, 245_896));
    assert_eq!((info.prompt_tokens.max, info.output_tokens.max), (7_437, 1_899));
}

#[test]
fn azure_2023_conv() {
    let Some(trace) = shared("azure_llm_2023/AzureLLMInferenceTrace_conv.csv.gz") else { return };
    assert!(trace.notes.lines().is_empty());
    let info = TraceInfo::of(&trace);
    assert_eq!((info.requests, info.span_s), (19_366, 3501.721937));
    assert_eq!(rounded(info.mean_rate_per_s.unwrap(), 3), "5.530");
    assert_eq!(
        (info.peak_1s_requests, info.peak_60s_requests, info.least_60s_requests),
        (16, 507, Some(191))
    );
    assert_eq!(rounded(info.gap_cv.unwrap(), 2), "1.09");
    assert_eq!(rounded(info.dispersion_1s.unwrap(), 2), "1.39");
    let (prompt, output) = (info.prompt_tokens, info.output_tokens);
    assert_eq!((prompt.total, output.total), (22_361_870, 4_088_665));
    assert_eq!((rounded(prompt.mean, 1), rounded(output.mean, 1)), ("1154.7".to_owned(), "211.1".to_owned()));
    assert_eq!((prompt.p50, prompt.p90, prompt.p99.round(), prompt.max), (1020.0, 2734.5, 4142.0, 14_050));
    assert_eq!((output.p50, output.p90, output.p99.round(), output.max), (129.0, 424.0, 601.0, 1_000));
    assert!(info.reuse.is_none());
}

#[test]
fn mooncake_conversation() {
    let Some(trace) = shared("mooncake_fast25/conversation_trace.jsonl.gz") else { return };
    assert_eq!(trace.format, "mooncake");
    assert_eq!(trace.notes.duplicate_times, 12_031 - 1_180);
    let info = TraceInfo::of(&trace);
    assert_eq!((info.requests, info.span_s), (12_031, 3536.999));
    assert_eq!(
        (info.peak_1s_requests, info.peak_60s_requests, info.least_60s_requests),
        (28, 247, Some(144))
    );
    assert_eq!(rounded(info.gap_cv.unwrap(), 2), "3.03");
    assert_eq!(rounded(info.dispersion_1s.unwrap(), 2), "7.89");
    assert_eq!((info.prompt_tokens.total, info.output_tokens.total), (144_793_823, 4_122_048));
    let reuse = info.reuse.unwrap();
    assert_eq!((reuse.block_references, reuse.distinct_blocks), (288_500, 182_790));
    assert_eq!(rounded(reuse.block_share, 4), "0.3664");
    assert_eq!(rounded(reuse.prompt_token_share, 4), "0.3736");
}

#[test]
fn azure_2024_samples() {
    for (name, microseconds) in [("code", 604_799_919_571), ("conv", 604_799_994_297)] {
        let Some(trace) = shared(&format!("format_samples/azure_llm_2024_{name}.head5_tail5.csv")) else {
            return;
        };
        assert_eq!((trace.format, trace.rows.len()), ("azure-2024", 10));
        assert_eq!(trace.rows[9].arrived.as_ps(), microseconds * 1_000_000);
    }
}

/// The other published layouts are turned away by name of what is foreign, not misread.
#[test]
fn other_layouts_are_turned_away() {
    for (name, said) in [
        ("format_samples/azure_lmm_2025_multimodal.head5_tail5.csv", "unknown column \"NumImages\""),
        ("format_samples/qwen_bailian_thinking.head1.jsonl", "unknown column \"chat_id\""),
        ("format_samples/burstgpt_1.head3.csv", "opens no known trace format"),
        ("vidur_processed/splitwise_code.csv.gz", "opens no known trace format"),
        ("agentic_kv_cache_tester/agentic_traces_440.tar.xz", "not UTF-8 text"),
        ("dynamo_request_trace/pi_request_trace.jsonl.gz", "opens no known trace format"),
    ] {
        let Some(path) = shared_path(name) else { continue };
        let error = read(&path, None).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
