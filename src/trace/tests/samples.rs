//! The samples in `traces/`: each is what its generator writes, and reads as what it is.

#[path = "../../../examples/samples/mod.rs"]
mod generated;

use std::path::Path;

use crate::trace::{ReadOptions, TraceInfo, read};

#[test]
fn samples_are_generated_anew_to_the_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    let mut total = 0;
    for (name, text) in generated::all() {
        let kept = std::fs::read(folder.join(name)).unwrap();
        assert!(kept == text.as_bytes(), "{name} differs; run `cargo run --example generate_traces`");
        total += kept.len();
    }
    assert!(total < 200_000, "{total} bytes");
}

#[test]
fn samples_are_recognised() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    for (name, requests, reuse) in [
        ("azure-2023-sample.csv", 600, false),
        ("azure-2024-sample.csv", 300, false),
        ("mooncake-sample.jsonl", 200, true),
        ("plain-sample.csv", 200, true),
        ("plain-sample.jsonl", 100, true),
    ] {
        let trace = read(&folder.join(name), &ReadOptions::default()).unwrap();
        let format = name.replace("-sample.", "-").replace("plain", "tailcast");
        assert!(format.starts_with(trace.format), "{name} was read as {}", trace.format);
        let info = TraceInfo::of(&trace);
        assert_eq!((info.requests, info.reuse.is_some()), (requests, reuse), "{name}");
        if let Some(reuse) = info.reuse {
            assert!(reuse.prompt_token_share > 0.2 && reuse.prompt_token_share < 0.9, "{name}: {reuse:?}");
        }
    }
}
