//! Laws of the roofline, and its figures against published ones.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::hardware::models::{KvCacheDtype, WeightDtype};
use crate::hardware::{gpu, model};
use crate::step_time::Chunk;
use crate::step_time::testing::assert_run_equals_the_loop;

fn bind(card: &str, name: &str, change: impl FnOnce(&mut Deployment)) -> Roofline {
    let (card, model) = (gpu(card).unwrap(), model(name).unwrap());
    let mut deployment = Deployment::defaults(card, model);
    change(&mut deployment);
    Roofline::bind(card, model, &deployment).unwrap()
}

fn decodes(count: u32, context: u64) -> Decodes {
    Decodes { count, context_sum: u64::from(count) * context, context_max: context as u32 }
}

fn decode_ms(roofline: &Roofline, count: u32, context: u64) -> f64 {
    roofline.cost(&Batch { chunks: &[], decodes: decodes(count, context) }).gpu.as_ms()
}

fn prefill_ms(roofline: &Roofline, tokens: u32, before: u32, beside: Decodes) -> f64 {
    let chunks = [Chunk { tokens, before, samples: true }];
    roofline.cost(&Batch { chunks: &chunks, decodes: beside }).gpu.as_ms()
}

/// Weights alone take 4.8 ms to read (16.06 GB at 3,350 GB/s); published TPOTs at batch 1 are 6 to 7.5 ms. 2,048 tokens
/// are 33 TFLOP: 33 ms at the dense peak and 41 ms at the measured 80 % of it, with attention and small kernels more.
#[test]
fn llama_8b_on_h100_is_where_public_figures_are() {
    let roofline = bind("h100-sxm", "llama-3.1-8b", |_| {});
    assert!(roofline.marks().is_empty(), "{:?}", roofline.marks());
    let one = decode_ms(&roofline, 1, 1_024);
    assert!((6.0..7.5).contains(&one), "batch 1: {one} ms");
    let many = decode_ms(&roofline, 64, 1_024);
    assert!((8.0..11.0).contains(&many), "batch 64: {many} ms");
    let prompt = prefill_ms(&roofline, 2_048, 0, Decodes::default());
    assert!((42.0..60.0).contains(&prompt), "2,048 tokens: {prompt} ms");
}

#[test]
fn an_empty_batch_is_free_and_padding_makes_a_staircase() {
    let roofline = bind("h100-sxm", "llama-3.1-8b", |_| {});
    assert_eq!(roofline.cost(&Batch { chunks: &[], decodes: Decodes::default() }), StepCost::default());
    assert_eq!(roofline.by_tokens[9], roofline.by_tokens[16]);
    assert_eq!(roofline.by_tokens[497], roofline.by_tokens[512]);
    assert!(roofline.by_tokens[256] < roofline.by_tokens[512]);
    let eager = bind("h100-sxm", "llama-3.1-8b", |deployment| deployment.enforce_eager = true);
    assert!(eager.by_tokens[497] < eager.by_tokens[512]);
}

/// Without graphs a small model waits for its launches, 30 microseconds a layer.
#[test]
fn eager_launches_are_a_floor() {
    let eager = bind("h100-sxm", "qwen2.5-0.5b", |deployment| deployment.enforce_eager = true);
    let floor_ms = 24.0 * 0.030;
    assert!(decode_ms(&eager, 1, 10) >= floor_ms);
    let graphs = bind("h100-sxm", "qwen2.5-0.5b", |_| {});
    assert!(decode_ms(&graphs, 1, 10) <= decode_ms(&eager, 1, 10));
}

/// One call for all: decodes beside a chunk cost more than alone on cards that run FlashAttention 2, and no more on
/// Hopper.
#[test]
fn mixed_batches_cost_more_on_flash_attention_2() {
    let extra = |card| {
        let roofline = bind(card, "llama-3.1-8b", |_| {});
        let attention =
            |chunks: &[Chunk], decodes| roofline.attention.cost_ps(&Batch { chunks, decodes }) as f64;
        let chunk = [Chunk { tokens: 256, before: 0, samples: true }];
        let (alone, prompt) = (attention(&[], decodes(64, 1_000)), attention(&chunk, Decodes::default()));
        attention(&chunk, decodes(64, 1_000)) / (alone + prompt)
    };
    assert!(extra("rtx-pro-6000-server") > 1.18, "measured 18 to 41 % above the sum");
    assert!(extra("h100-sxm") <= 1.0);
}

#[test]
fn uncertain_combinations_are_marked() {
    let marked = |card, name, word: &str| {
        let marks = bind(card, name, |_| {}).marks().join("\n");
        assert!(marks.contains(word), "{card} {name}: {marks}");
    };
    marked("h100-pcie", "llama-3.1-8b", "taken from h100-sxm");
    marked("mi300x", "llama-3.1-8b", "no operator of AMD");
    marked("a10", "qwen2.5-7b", "defaults stand for them");
    marked("h100-sxm", "gpt-oss-20b", "experts");
    marked("h100-sxm", "deepseek-v3", "measured on H200 alone");
    marked("a100-80-sxm", "minimax-m2.5", "no fp8 arithmetic");
}

/// Every combination of the catalogue has a price, and more work never takes less time.
#[test]
fn every_card_and_model_has_a_price() {
    for card in crate::hardware::gpus() {
        for model in crate::hardware::models() {
            let deployment = Deployment {
                max_num_batched_tokens: 64,
                max_num_seqs: 64,
                ..Deployment::defaults(card, model)
            };
            let roofline = Roofline::bind(card, model, &deployment).unwrap();
            let (few, many) = (decode_ms(&roofline, 1, 100), decode_ms(&roofline, 32, 2_000));
            assert!(0.0 < few && few < many, "{} {}: {few} {many}", card.name, model.name);
            let (new, chunk) = (
                prefill_ms(&roofline, 48, 0, Decodes::default()),
                prefill_ms(&roofline, 48, 9_000, decodes(9, 99)),
            );
            assert!(0.0 < new && new < chunk, "{} {}: {new} {chunk}", card.name, model.name);
        }
    }
}

/// Median error of TPOT over the steady runs of Llama-70B fp8 on H100 (InferenceX, closed loop), by
/// `TPOT = decode(B) + (B-1)/output * [prefill beside B-1 decodes - decode(B)]`. Lengths are uniform in 0.8 to 1 of the
/// nominal ones. Left out: runs that waited for KV memory, whose TTFT is tens of seconds.
#[test]
fn llama_70b_tpot_agrees_with_published_runs() {
    let Some(errors) = tpot_errors("meta-llama/Llama-3.1-70B", "llama-3.1-70b", WeightDtype::Fp8) else {
        return;
    };
    let (median, mean) = summary(&errors);
    assert!(errors.len() >= 40, "{} runs", errors.len());
    assert!(median < 0.12, "median {median:.3}, mean {mean:.3}");
}

/// The same for gpt-oss-120b, an expert model in four bits: the notes on step time report 12 % in the mean over more
/// runs than these. The figure here is 6 % in the median; some runs of the file disagree with their neighbours.
#[test]
fn gpt_oss_tpot_agrees_with_published_runs() {
    let Some(errors) = tpot_errors("openai/gpt-oss-120b", "gpt-oss-120b", WeightDtype::Auto) else { return };
    let (median, mean) = summary(&errors);
    assert!(errors.len() >= 30, "{} runs", errors.len());
    assert!(median < 0.12, "median {median:.3}, mean {mean:.3}");
}

fn summary(errors: &[f64]) -> (f64, f64) {
    let mut sizes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    (sizes[sizes.len() / 2], sizes.iter().sum::<f64>() / sizes.len() as f64)
}

/// Relative errors of predicted TPOTs; none where the measurements are not at hand.
fn tpot_errors(path: &str, name: &str, weight_dtype: WeightDtype) -> Option<Vec<f64>> {
    let file = shared("profiles/e2e_inferencex_h100_vllm.csv.gz")?;
    let mut reader =
        csv::Reader::from_reader(flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap()));
    let headers = reader.headers().unwrap().clone();
    let mut errors = Vec::new();
    for row in reader.records() {
        let row = row.unwrap();
        let text =
            |column: &str| row.get(headers.iter().position(|header| header == column).unwrap()).unwrap();
        let number = |column: &str| text(column).parse::<f64>().unwrap();
        let waited_for_memory = number("ttft_ms") > 5_000.0;
        if text("model_path") != path || waited_for_memory || number("conc") > 64.0 {
            continue;
        }
        let roofline = bind("h100-sxm", name, |deployment| {
            deployment.tensor_parallel_size = number("tp_size") as u32;
            deployment.weight_dtype = weight_dtype;
            deployment.kv_cache_dtype = KvCacheDtype::Auto;
            deployment.max_num_batched_tokens = 8_192;
        });
        let (prompt, output) = (0.9 * number("isl"), 0.9 * number("osl"));
        let count = number("conc") as u32;
        let context = (prompt + output / 2.0) as u64;
        let steady = decode_ms(&roofline, count, context);
        let disturbed = prefill_ms(&roofline, prompt as u32, 0, decodes(count - 1, context));
        let tpot_ms = steady + f64::from(count - 1) / output * (disturbed - steady);
        errors.push(tpot_ms / number("tpot_ms") - 1.0);
    }
    Some(errors)
}

/// A file of measurements that lies beside the checkout.
#[expect(clippy::print_stderr, reason = "a check that is left out says so")]
fn shared(path: &str) -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if file.exists() {
        return Some(file);
    }
    assert!(std::env::var_os("TAILCAST_REQUIRE_SHARED").is_none(), "{} is not there", file.display());
    eprintln!("not checked: {} is not there", file.display());
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_run_equals_its_steps(
        pair in prop::sample::select(vec![
            ("h100-sxm", "llama-3.1-8b"), ("rtx-4090", "mistral-7b-v0.1"), ("h200-sxm", "deepseek-v2-lite"),
            ("h100-sxm", "gpt-oss-20b"), ("h100-sxm", "qwen2.5-0.5b"),
        ]),
        enforce_eager in any::<bool>(),
        count in 1u32..256,
        context in prop_oneof![1u64..300, 3_900u64..4_200, 1u64..100_000],
        steps in 1u64..400,
    ) {
        let roofline = bind(pair.0, pair.1, |deployment| {
            deployment.enforce_eager = enforce_eager;
            deployment.max_num_batched_tokens = 256;
            deployment.max_num_seqs = 256;
        });
        assert_run_equals_the_loop(&roofline, count, context, steps);
    }
}
