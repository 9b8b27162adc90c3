//! A small profile written for the purpose, with times that can be worked out by hand.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::hardware::{gpu, model};
use crate::step_time::Chunk;
use crate::step_time::testing::assert_run_equals_the_loop;

const DENSE: [(&str, f64); 9] = [
    ("embedding", 1.0),
    ("layernorm", 2.0),
    ("qkv_proj", 3.0),
    ("rotary_emb", 4.0),
    ("o_proj", 5.0),
    ("gate_up_proj", 6.0),
    ("act_fn", 7.0),
    ("down_proj", 8.0),
    ("final_layernorm", 9.0),
];

/// Tokens at which the small profile has dense times.
const TOKENS: [u32; 6] = [1, 8, 16, 64, 128, 2048];

/// Decodes: 10 us and 1 us for each thousand tokens of all contexts. Prompts: 20 us and 1 us a hundred pairs, and what
/// decodes beside them read, twice.
fn attention_us(chunk: u32, before: u32, decodes: u32, context: u32) -> f64 {
    let read = f64::from(decodes * context) / 1_000.0;
    match chunk {
        0 => 10.0 + read,
        _ => 20.0 + f64::from(chunk) * f64::from(2 * before + chunk) / 20_000.0 + 2.0 * read,
    }
}

/// Writes a profile whose operator of weight w takes w us and w us more for each 128 tokens.
fn profile() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("tp1")).unwrap();
    let mut dense = String::from("layer,tokens,time_us\n");
    for (name, weight) in DENSE {
        for tokens in TOKENS {
            let us = weight * (1.0 + f64::from(tokens) / 128.0);
            dense.push_str(&format!("{name},{tokens},{us}\n"));
        }
    }
    fs::write(folder.path().join("tp1/dense.csv"), dense).unwrap();
    let mut sequences = String::from("layer,sequences,time_us\n");
    for count in [1, 256] {
        sequences.push_str(&format!("lm_head,{count},100\nsampler,{count},{}\n", 10 + count));
    }
    fs::write(folder.path().join("tp1/per_sequence.csv"), sequences).unwrap();
    let mut attention = String::from("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n");
    let mut row = |chunk, before, decodes, context| {
        let us = attention_us(chunk, before, decodes, context);
        attention.push_str(&format!("{chunk},{before},{decodes},{context},{us}\n"));
    };
    for decodes in [1, 4, 16, 64, 256] {
        for context in [16, 256, 1024, 16_384] {
            row(0, 0, decodes, context);
            for chunk in [16, 128, 1024] {
                for before in [0, 512, 4096] {
                    row(chunk, before, decodes, context);
                }
            }
        }
    }
    for chunk in [16, 128, 1024] {
        for before in [0, 512, 4096] {
            row(chunk, before, 0, 0);
        }
    }
    fs::write(folder.path().join("tp1/attention.csv"), attention).unwrap();
    folder
}

fn deployment() -> Deployment {
    let deployment = Deployment::defaults(gpu("rtx-4090").unwrap(), model("llama-3.1-8b").unwrap());
    Deployment { max_model_len: 16_384, ..deployment }
}

fn bind(folder: &TempDir) -> Result<LayerTimes, ProfileError> {
    let profile = LayerProfile::read(folder.path(), 1)?;
    LayerTimes::bind(&profile, gpu("rtx-4090").unwrap(), model("llama-3.1-8b").unwrap(), &deployment())
}

fn us(times: &LayerTimes, chunks: &[Chunk], count: u32, context: u32) -> f64 {
    let decodes = Decodes { count, context_sum: u64::from(count) * u64::from(context), context_max: context };
    times.cost(&Batch { chunks, decodes }).gpu.as_us()
}

/// Everything but attention, for 32 layers of the small profile.
fn dense_us(padded: u32, samples: u32) -> f64 {
    let layer: f64 = DENSE[1..8].iter().map(|(_, weight)| weight).sum::<f64>() + DENSE[1].1;
    (10.0 + 32.0 * layer) * (1.0 + f64::from(padded) / 128.0) + 110.0 + f64::from(samples)
}

#[test]
fn a_step_costs_what_its_parts_do() {
    let times = bind(&profile()).unwrap();
    // Fifteen decodes run in the graph of sixteen tokens, and sample fifteen times.
    let expected = dense_us(16, 15) + 32.0 * attention_us(0, 0, 15, 1024);
    assert!((us(&times, &[], 15, 1024) - expected).abs() < 0.01, "{} {expected}", us(&times, &[], 15, 1024));
}

#[test]
fn a_measured_call_costs_what_was_measured() {
    let times = bind(&profile()).unwrap();
    for (tokens, before, count, context) in [(1024, 512, 64, 1024), (128, 4096, 1, 16), (16, 0, 4, 256)] {
        let chunk = Chunk { tokens, before, samples: true };
        let padded = capture_size(tokens + count, 512).unwrap_or(tokens + count);
        let got = us(&times, &[chunk], count, context);
        let attention = 32.0 * attention_us(tokens, before, count, context);
        let expected = dense_us(padded, count + 1) + attention;
        assert!((got / expected - 1.0).abs() < 1e-6, "{tokens} {before} {count} {context}: {got} {expected}");
    }
    let alone = us(&times, &[Chunk { tokens: 1024, before: 512, samples: true }], 0, 0);
    let expected = dense_us(1024, 1) + 32.0 * attention_us(1024, 512, 0, 0);
    assert!((alone / expected - 1.0).abs() < 1e-6, "{alone} {expected}");
}

#[test]
fn several_prompts_cost_less_than_one_of_their_length() {
    let times = bind(&profile()).unwrap();
    let chunk = |tokens| Chunk { tokens, before: 0, samples: true };
    let one = us(&times, &[chunk(1024)], 0, 0);
    let four = us(&times, &[chunk(256); 4], 0, 0) - 3.0;
    assert!(four < one, "{four} {one}");
}

#[test]
fn runs_are_the_loop_across_corners() {
    let times = bind(&profile()).unwrap();
    for (count, context) in [(1, 10), (3, 250), (64, 1000), (256, 16_380), (17, 1)] {
        assert_run_equals_the_loop(&times, count, context, 400);
    }
}

#[test]
fn a_context_above_the_mean_costs_its_distance_as_long_as_the_run_lasts() {
    let folder = profile();
    let even = bind(&folder).unwrap();
    // Sums of three rounds, as this table comes: 64 sequences of which one is long take 3 us more a thousand tokens.
    let mut skew = String::from("regime,n,nb,kv_big,kv_mean,t_mean_us,t_skew_us\n");
    for count in [2, 64] {
        let mean_us = 3.0 * attention_us(0, 0, count, 1024);
        let more_us = if count == 64 { 3.0 * 3.0 * 3.0 } else { 0.0 };
        skew.push_str(&format!("pure,{count},1,4024,1024,{mean_us},{}\n", mean_us + more_us));
        skew.push_str(&format!("mixed,{count},1,4024,1024,1,999\n"));
    }
    fs::write(folder.path().join("tp1/skew.csv"), skew).unwrap();
    let uneven = bind(&folder).unwrap();
    let batch = |count: u32| Decodes { count, context_sum: u64::from(count) * 1000, context_max: 3000 };
    let cost =
        |times: &LayerTimes, count| times.cost(&Batch { chunks: &[], decodes: batch(count) }).gpu.as_us();
    for count in [8, 64] {
        // In a graph no context is split, so few sequences pay what many do.
        let more = cost(&uneven, count) - cost(&even, count);
        assert!((more - 32.0 * 3.0 * 2.0).abs() < 0.01, "{count}: {more}");
    }
    let series = uneven.run(batch(64), 5);
    let fifth = Decodes { count: 64, context_sum: 64 * 1004, context_max: 3004 };
    assert_eq!(uneven.cost(&Batch { chunks: &[], decodes: fifth }).gpu, series.first.gpu + series.growth * 4);
    // A table of an earlier profile is not part of this one.
    fs::write(folder.path().join("meta.yaml"), "skew_profile:\n  enabled: false\n").unwrap();
    let without = bind(&folder).unwrap();
    assert_eq!(cost(&without, 64), cost(&even, 64));
    assert!(without.marks().iter().any(|mark| mark.contains("uneven")), "{:?}", without.marks());
}

#[test]
fn what_leaves_the_profile_is_marked() {
    let folder = profile();
    let profile = LayerProfile::read(folder.path(), 1).unwrap();
    let wide =
        Deployment { max_num_batched_tokens: 4096, max_num_seqs: 512, max_model_len: 32_768, ..deployment() };
    let times =
        LayerTimes::bind(&profile, gpu("rtx-4090").unwrap(), model("llama-3.1-8b").unwrap(), &wide).unwrap();
    let marks = times.marks().join("\n");
    for key in ["max_num_batched_tokens = 4096", "max_num_seqs = 512", "max_model_len = 32768"] {
        assert!(marks.contains(key), "{marks}");
    }
    assert!(us(&times, &[], 512, 20_000) > us(&times, &[], 256, 16_384));
}

/// What reading and binding say after one change to one file.
fn said(file: &str, change: impl Fn(&str) -> String) -> String {
    let folder = profile();
    let path = folder.path().join("tp1").join(file);
    fs::write(&path, change(&fs::read_to_string(&path).unwrap())).unwrap();
    let text = bind(&folder).unwrap_err().to_string();
    text.replace(&folder.path().display().to_string(), "FOLDER")
}

#[test]
fn refusals_name_file_line_and_operator() {
    let text = said("dense.csv", |text| text.replace("qkv_proj", "qkv"));
    assert!(
        text.starts_with("FOLDER/tp1/dense.csv: has no times for qkv_proj, which llama-3.1-8b needs"),
        "{text}"
    );
    let text = said("dense.csv", |text| text.to_owned() + "indexer,1,5\n");
    assert!(text.contains("holds times of indexer, a part that is not understood"), "{text}");
    let text = said("dense.csv", |text| text.replace("embedding,1,", "embedding,1,-"));
    assert!(
        text.starts_with("FOLDER/tp1/dense.csv:2: column time_us: expected microseconds above 0"),
        "{text}"
    );
    let text = said("attention.csv", |text| text.replace("n_decode", "decodes"));
    assert!(text.contains("has no column n_decode; its columns are prefill_chunk"), "{text}");
    let text = said("attention.csv", |text| text.lines().take(2).collect::<Vec<_>>().join("\n"));
    assert!(text.contains("too few rows with a prefill chunk"), "{text}");
    let text = said("per_sequence.csv", |_| "layer,sequences,time_us\n".into());
    assert_eq!(text, "FOLDER/tp1/per_sequence.csv: holds no rows");
}

#[test]
fn an_absent_table_is_answered_with_those_that_are_there() {
    let folder = profile();
    let text = LayerProfile::read(folder.path(), 2).unwrap_err().to_string();
    assert!(text.contains("has no dense table for tensor_parallel_size 2 (but for 1)"), "{text}");
    let text = LayerProfile::read(&folder.path().join("none"), 1).unwrap_err().to_string();
    assert!(text.contains("is not a folder"), "{text}");
}
