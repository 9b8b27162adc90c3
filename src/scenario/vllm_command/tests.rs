//! Command lines as people write them, and as they get them wrong.

use proptest::prelude::*;
use toml::Value;

use super::{CommandError, Fate, VllmCommand, parse};

/// The keys that a command with these flags sets, the model left out.
fn keys(flags: &str) -> Vec<(&'static str, Value)> {
    command(flags).mapped().into_iter().filter(|(key, _)| *key != "model").collect()
}

fn command(flags: &str) -> VllmCommand {
    parse(&format!("vllm serve m {flags}")).unwrap()
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn refusals(flags: &str) -> Vec<String> {
    command(flags).refused().map(|flag| flag.text.clone()).collect()
}

#[test]
fn a_command_of_an_h100() {
    let command = parse(
        "CUDA_VISIBLE_DEVICES=0,1 VLLM_USE_V1=1 HF_TOKEN=hf_1 vllm serve meta-llama/Llama-3.1-70B-Instruct \\
            --host 0.0.0.0 --port 8000 --api-key sk-1 sk-2 --served-model-name llama llama-70b -tp 4 -O2 \\
            --gpu-memory-utilization=0.95 --max-model-len 32K --max_num_batched_tokens 16384 --max-num-seqs 512 \\
            --enable-prefix-caching --no-async-scheduling --kv-cache-dtype fp8_e4m3 --quantization fp8 \\
            --trust-remote-code --dtype bfloat16 --seed 0 --speculative-config '{\"method\": \"ngram\"}'",
    )
    .unwrap();
    assert_eq!(command.model(), Some("meta-llama/Llama-3.1-70B-Instruct"));
    let expected: Vec<(&str, Value)> = vec![
        ("model", "meta-llama/Llama-3.1-70B-Instruct".into()),
        ("tensor_parallel_size", 4.into()),
        ("gpu_memory_utilization", 0.95.into()),
        ("max_model_len", 32768.into()),
        ("max_num_batched_tokens", 16384.into()),
        ("max_num_seqs", 512.into()),
        ("enable_prefix_caching", true.into()),
        ("async_scheduling", false.into()),
        ("kv_cache_dtype", "fp8".into()),
        ("quantization", "fp8".into()),
    ];
    assert_eq!(command.mapped(), expected);
    let refused: Vec<_> = command.refused().map(|flag| flag.text.as_str()).collect();
    assert_eq!(refused, [r#"--speculative-config '{"method": "ngram"}'"#]);
    let texts: Vec<_> = command.flags.iter().map(|flag| flag.text.as_str()).collect();
    assert_eq!(texts.len(), 22);
    assert!(texts.contains(&"--api-key ***") && texts.contains(&"HF_TOKEN=***"), "{texts:?}");
    assert!(texts.contains(&"--served-model-name llama llama-70b"), "{texts:?}");
}

#[test]
fn other_ways_to_start_vllm() {
    for text in [
        "python3 -m vllm.entrypoints.openai.api_server --model m --block-size 32",
        "docker run --gpus all -v ~/.cache:/root/vllm vllm/vllm-openai:v0.24.0 --model=m --block-size=32",
        "podman run --entrypoint '' vllm/vllm-openai vllm serve m --block-size 32",
        "sudo -E /opt/venv/bin/vllm serve --block-size 32 m",
    ] {
        let command = parse(text).unwrap();
        assert_eq!(command.model(), Some("m"), "{text}");
        assert!(command.mapped().contains(&("block_size", 32.into())), "{text}");
    }
}

#[test]
fn aliases_abbreviations_and_negations() {
    assert_eq!(keys("-tp=2"), keys("--tensor_parallel_size 2"));
    assert_eq!(keys("--tensor-parallel 2"), [("tensor_parallel_size", 2.into())]);
    assert_eq!(keys("-q None"), [("quantization", "none".into())]);
    assert_eq!(keys("--no-enable-chunked-prefill"), [("enable_chunked_prefill", false.into())]);
    assert_eq!(keys("--no-enable-prefix"), [("enable_prefix_caching", false.into())]);
    assert_eq!(keys("--no-scheduler-reserve-full-isl --watermark 0.01").len(), 2);
}

#[test]
fn numbers_with_units() {
    for (text, tokens) in [("8192", 8192), ("8k", 8000), ("8K", 8192), ("25.6k", 25_600), ("1m", 1_000_000)] {
        assert_eq!(
            keys(&format!("--max-num-batched-tokens {text}")),
            [("max_num_batched_tokens", tokens.into())]
        );
    }
    for text in ["1.5K", "k", "inf", "infk", "-8", "0", "9999999t", "99999999999999999999G", "8é", "''"] {
        let error = message(&format!("vllm serve m --max-num-batched-tokens={text}"));
        assert!(error.contains("expected a whole number from 1, such as 8192"), "{error}");
    }
}

#[test]
fn the_last_of_several_wins() {
    let command = command("-tp 2 --tensor-parallel-size 4");
    assert_eq!(command.mapped()[1..], [("tensor_parallel_size", 4.into())]);
    assert_eq!(command.flags[1].text, "-tp 2");
    assert_eq!(command.flags[1].fate, Fate::Irrelevant { reason: "overridden by a later one" });
    assert_eq!(keys("--enforce-eager --no-enforce-eager"), [("enforce_eager", false.into())]);
    assert_eq!(refusals("-pp 2 -pp 1"), [""; 0]);
    // Fields of one JSON value do not override each other.
    assert_eq!(
        refusals("--speculative-config.method ngram --speculative-config.num_speculative_tokens=4").len(),
        2
    );
}

#[test]
fn what_is_not_modelled_is_refused() {
    for flag in [
        "--speculative-config '{}'",
        "-sc.method eagle",
        "--pipeline-parallel-size 2",
        "-dp 2",
        "-dcp 2",
        "--nnodes 2",
        "--distributed-executor-backend ray",
        "--enable-eplb",
        "--enable-lora",
        "--lora-modules a=b c=d",
        "--kv-transfer-config '{}'",
        "--cpu-offload-gb 10",
        "--kv-offloading-size 20",
        "--kv-cache-memory-bytes 20G",
        "-q awq",
        "--kv-cache-dtype nvfp4",
        "--max-model-len auto",
        "--max-model-len -1",
        "--dtype float32",
        "--load-format bitsandbytes",
        "--hf-overrides '{}'",
        "--performance-mode throughput",
        "--optimization-level 3",
        "-O0",
        "-cc '{}'",
        "--cudagraph-capture-sizes 1 2 4",
        "--attention-backend FLASHINFER",
        "--limit-mm-per-prompt.image 2",
        "--stream-interval 4",
        "--max-num-partial-prefills 2",
        "--prefill-schedule-interval 8",
        "--scheduler-cls a.B",
        "--config a.yaml",
        "--disable-log-stats",
    ] {
        assert_eq!(refusals(flag).len(), 1, "{flag}");
        assert_eq!(keys(flag), [], "{flag}");
    }
    let environment = parse("VLLM_ATTENTION_BACKEND=FLASHINFER vllm serve m").unwrap();
    assert_eq!(environment.refused().count(), 1);
}

#[test]
fn a_default_written_out_changes_nothing() {
    let flags = "-pp 1 -dp 1 --dtype auto --stream-interval 1 --performance-mode balanced -O 2 --cpu-offload-gb 0 \
                 --no-enable-lora --no-enable-eplb --max-num-partial-prefills 1 --load-format dummy";
    assert_eq!((refusals(flags), keys(flags)), (vec![], vec![]));
}

#[test]
fn every_name_belongs_to_one_flag() {
    let mut names: Vec<&str> = super::flags::names().collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1]);
    }
    assert!(names.iter().all(|name| super::flags::find(name).is_some()));
}

#[test]
fn errors_say_what_to_write() {
    for (text, expected) in [
        ("", "the command is empty; expected `vllm serve MODEL ...`"),
        (" \n ", "the command is empty; expected `vllm serve MODEL ...`"),
        ("vllm serve 'm", "a quote in the command is never closed"),
        ("sglang launch --model m", "expected `vllm serve MODEL ...`, got `sglang launch`"),
        ("vllm serve", "the command names no model; write it after `vllm serve`"),
        ("vllm serve --port 8000", "the command names no model; write it after `vllm serve`"),
        ("vllm serve m --model n", "the command names its model twice, as `m` and with `--model`"),
        ("vllm serve m > log", "unexpected `>`: it belongs to no flag"),
        (
            "vllm serve m --max-num-seq_s 4",
            "vLLM 0.24 has no flag `--max-num-seq_s`; did you mean `--max-num-seqs`?",
        ),
        (
            "vllm serve m --no-enable-prefix-cashing",
            "vLLM 0.24 has no flag `--no-enable-prefix-cashing`; did you mean `--no-enable-prefix-caching`?",
        ),
        ("vllm serve m --quux", "vLLM 0.24 has no flag `--quux`"),
        ("vllm serve m --", "vLLM 0.24 has no flag `--`"),
        (
            "vllm serve m --max-num-seqs.a 4",
            "vLLM 0.24 has no flag `--max-num-seqs.a`; did you mean `--max-num-seqs`?",
        ),
        ("vllm serve m --max-num-seqs", "`--max-num-seqs` needs a value"),
        ("vllm serve m --max-num-seqs --port 1", "`--max-num-seqs` needs a value"),
        ("vllm serve m -tp two", "`--tensor-parallel-size`: expected a whole number from 1, got `two`"),
        ("vllm serve m -pp two", "`--pipeline-parallel-size`: expected a number, got `two`"),
        (
            "vllm serve m --scheduling-policy sjf",
            "`--scheduling-policy`: expected `fcfs` or `priority`, got `sjf`",
        ),
        (
            "vllm serve m --gpu-memory-utilization 90",
            "`--gpu-memory-utilization`: expected a number above 0, up to 1, got `90`",
        ),
        (
            "vllm serve m --enforce-eager=False",
            "`--enforce-eager`: expected no value (`--no-` before the name turns it off), got `False`",
        ),
        ("vllm serve $MODEL", "`--model`: expected the name or path of a model, got `$MODEL`"),
    ] {
        assert_eq!(message(text), expected, "{text}");
    }
    assert_eq!(parse("'"), Err(CommandError::OpenQuote));
}

/// Words that are nearly flags, with any characters behind them.
const WORD: &str = r"(-O|--?(no-)?[a-z._=-]{0,8}|--max-num-batched-tokens=?)?\PC{0,4}";

proptest! {
    #[test]
    fn no_text_makes_it_panic(words in prop::collection::vec(WORD, 0..6)) {
        let text = format!("vllm serve {}", words.join(" "));
        if let Ok(command) = parse(&text) {
            prop_assert!(command.model().is_some());
        }
        let _ = parse(&words.join(" "));
    }
}
