//! The published traces, where they are at hand, against the numbers known of them.

use std::path::PathBuf;

use crate::trace::{ReadOptions, TARGETS, Trace, TraceInfo, cache_curve, read};

/// Reads the shared trace `name`, if it is here.
fn shared(name: &str) -> Option<Trace> {
    shared_path(name).map(|path| read(&path, &ReadOptions::default()).unwrap())
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
fn mooncake_in_a_cache_of_limited_size() {
    let Some(trace) = shared("mooncake_fast25/conversation_trace.jsonl.gz") else { return };
    let curve = cache_curve(&trace.rows, &[1_000, 5_000, 10_000, 30_000, 50_000, 100_000]);
    // Counted with the other order within a request, which lets beginnings go before what hangs on them.
    for (point, share) in curve.iter().zip([0.0445, 0.110, 0.211, 0.326, 0.355, 0.364]) {
        assert!((0.0..0.003).contains(&(point.block_share - share + 0.0005)), "{point:?}");
    }
}

/// A trace that is written as what it was read from is the published file, to the byte.
#[test]
fn published_files_are_written_again_to_the_byte() {
    for name in [
        "mooncake_fast25/conversation_trace.jsonl.gz",
        "azure_llm_2023/AzureLLMInferenceTrace_code.csv.gz",
        "azure_llm_2023/AzureLLMInferenceTrace_conv.csv.gz",
        "format_samples/azure_llm_2024_code.head5_tail5.csv",
    ] {
        let Some(path) = shared_path(name) else { return };
        let mut published = Vec::new();
        let opened = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        std::io::Read::read_to_end(&mut crate::compression::open(opened).unwrap(), &mut published).unwrap();
        let trace = read(&path, &ReadOptions::default()).unwrap();
        let target = TARGETS.iter().find(|target| target.name == trace.format).unwrap();
        assert!(target.losses(&trace).is_empty(), "{:?}", target.losses(&trace));
        let mut written = Vec::new();
        target.write(&trace, &mut written).unwrap();
        assert!(written == published, "{name}");
    }
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

#[test]
fn azure_2025_and_others_by_their_samples() {
    for (name, format, requests) in [
        ("azure_lmm_2025_multimodal.head5_tail5.csv", "azure-2025", 10),
        ("burstgpt_1.head3.csv", "burstgpt", 3),
        ("qwen_bailian_thinking.head1.jsonl", "bailian", 1),
    ] {
        let Some(trace) = shared(&format!("format_samples/{name}")) else { return };
        assert_eq!((trace.format, trace.rows.len()), (format, requests));
    }
}

/// The same requests in two formats: Vidur rounds times to microseconds.
#[test]
fn splitwise_code_is_azure_code() {
    let Some(vidur) = shared("vidur_processed/splitwise_code.csv.gz") else { return };
    let Some(azure) = shared("azure_llm_2023/AzureLLMInferenceTrace_code.csv.gz") else { return };
    assert_eq!((vidur.format, vidur.rows.len()), ("vidur", azure.rows.len()));
    for (a, b) in vidur.rows.iter().zip(&azure.rows) {
        assert_eq!((a.prompt_tokens, a.output_tokens), (b.prompt_tokens, b.output_tokens));
        assert!((a.arrived.as_s() - b.arrived.as_s()).abs() < 1e-6);
    }
}

#[test]
fn lengths_without_times() {
    let Some(trace) = shared("length_datasets/sharegpt_8k_filtered_stats_llama2_tokenizer.csv.gz") else {
        return;
    };
    assert!(trace.is_timeless());
    assert_eq!((trace.rows.len(), TraceInfo::of(&trace).prompt_tokens.max), (30_731, 8_141));
}

#[test]
fn agentic_sessions() {
    let Some(all) = shared("agentic_kv_cache_tester/agentic_traces_440.tar.xz") else { return };
    let info = TraceInfo::of(&all);
    // 28,317 requests, of which some produced nothing.
    assert_eq!(info.requests + all.notes.output_zero_skipped, 28_317);
    assert_eq!(rounded(info.reuse.unwrap().prompt_token_share, 3), "0.962");
    let mut sessions: Vec<u64> = all.rows.iter().filter_map(|row| row.session).collect();
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len(), 440);
    // Who waits was sent after those it waited for were.
    for row in &all.rows {
        assert!(row.waits.iter().all(|wait| all.rows[wait.row as usize].arrived <= row.arrived));
    }
    let starts = all.rows.iter().filter(|row| row.waits.is_empty()).count();
    assert!((440..440 + 30).contains(&starts), "{starts} requests wait for nobody");
}

#[test]
fn agentic_think_time_is_as_recorded() {
    let Some(trace) = shared("agentic_kv_cache_tester/trace_0254.json.gz") else { return };
    let thinks = trace.rows.iter().flat_map(|row| row.waits.iter()).filter_map(|wait| wait.think);
    assert!(thinks.count() >= trace.rows.len() - 1);
    // Two subagents run beside each other: both begin when the same answer has come.
    let mut waited: Vec<u32> =
        trace.rows.iter().flat_map(|row| row.waits.iter()).map(|wait| wait.row).collect();
    waited.sort_unstable();
    assert!(waited.windows(2).any(|pair| pair[0] == pair[1]));
}

#[test]
fn dynamo_requests() {
    let Some(trace) = shared("dynamo_request_trace/pi_request_trace.jsonl.gz") else { return };
    assert_eq!((trace.rows.len(), trace.notes.other_kinds_skipped), (17, 44));
    assert!(trace.notes.out_of_order > 0);
    assert_eq!(trace.started_ps / 1_000_000_000, 1_779_163_048_815);
    assert!(trace.rows.iter().filter(|row| !row.waits.is_empty()).count() > 10);
    // A prompt that holds a whole block of another's has it from the start.
    assert!(TraceInfo::of(&trace).reuse.unwrap().block_share > 0.7);
}

#[test]
fn tracelab_rounds() {
    let Some(trace) = shared("tracelab_example/round_trace.jsonl.gz") else { return };
    assert_eq!((trace.format, trace.rows.len()), ("tracelab", 19));
    assert_eq!(trace.rows.iter().filter(|row| row.waits.is_empty()).count(), 2);
}
