//! Every flag of `vllm serve`, in one table: its names, what follows it, and what becomes of it.
//!
//! Knows what vLLM 0.24 accepts and what the simulator models. Does not know how words follow each other.

use Rule::{Ignored, Refused, RefusedUnless, Sets};
use Takes::{Many, One, Secret, Switch};

use super::values::{
    Reading, cache_type, length, memory_share, model, policy, positive, quantization, readable, switch,
    watermark, whole,
};

/// What follows a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing; `--no-` before its name turns it off.
    Switch,
    /// One value.
    One,
    /// All words up to the next flag, at least one.
    Many,
    /// Words that must not be shown.
    Secret,
}

/// What a flag does.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// Sets this key to the value that is read.
    Sets(&'static str, fn(&str) -> Reading),
    /// Nothing that time depends on; the reason.
    Ignored(&'static str),
    /// Something that is not modelled; the reason.
    Refused(&'static str),
    /// The same, but these values are what vLLM does anyway.
    RefusedUnless(&'static [&'static str], &'static str),
}

const FRONT_END: &str = "the front end's delay is `frontend_ms` of `[network]`";
const TEXT_LENGTHS: &str = "prompt and output lengths come from the workload";
const LISTENING: &str = "says where and how the server listens";
const LOADING: &str = "only start-up reads it";
const LOGGING: &str = "only says what is logged, measured or published";
const PLAIN_TEXT: &str = "only concerns images, audio and video; the workload is text";
const PLACEMENT: &str = "says where processes run and meet; the host's cost does not follow from it";
const KERNELS: &str = "step times are those of the kernels that vLLM chooses itself";
const GRAPHS: &str = "step times are those of vLLM's default compilation and CUDA graphs";
const PROFILING: &str = "a profiler slows the steps that it watches";
const OWN_CODE: &str = "its code takes part in every step and is not known here";
const OFF: &[&str] = &["false"];

/// Every flag of vLLM 0.24, its aliases after a bar, what follows it, and what becomes of it.
/// A few flags of neighbouring versions that do no harm are here too, for commands that outlive a version.
const FLAGS: &[Row] = &[
    // Set a key of `[[replicas]]`.
    (One, "--model", Sets("model", model)),
    (One, "--tensor-parallel-size|-tp", Sets("tensor_parallel_size", positive)),
    (One, "--gpu-memory-utilization", Sets("gpu_memory_utilization", memory_share)),
    (One, "--max-model-len", Sets("max_model_len", length)),
    (One, "--max-num-batched-tokens", Sets("max_num_batched_tokens", readable)),
    (One, "--max-num-seqs", Sets("max_num_seqs", positive)),
    (One, "--block-size", Sets("block_size", positive)),
    (One, "--num-gpu-blocks-override", Sets("num_gpu_blocks_override", positive)),
    (Switch, "--enable-prefix-caching", Sets("enable_prefix_caching", switch)),
    (Switch, "--enable-chunked-prefill", Sets("enable_chunked_prefill", switch)),
    (One, "--long-prefill-token-threshold", Sets("long_prefill_token_threshold", whole)),
    (One, "--scheduling-policy", Sets("scheduling_policy", policy)),
    (Switch, "--async-scheduling", Sets("async_scheduling", switch)),
    (One, "--kv-cache-dtype", Sets("kv_cache_dtype", cache_type)),
    (One, "--quantization|-q", Sets("quantization", quantization)),
    (Switch, "--enforce-eager", Sets("enforce_eager", switch)),
    (Switch, "--enable-expert-parallel|-ep", Sets("enable_expert_parallel", switch)),
    (Switch, "--scheduler-reserve-full-isl", Sets("scheduler_reserve_full_isl", switch)),
    (One, "--watermark", Sets("watermark", watermark)),
    // Have no say in time.
    (Many, "--served-model-name", Ignored("a name for clients")),
    (Secret, "--api-key --hf-token", Ignored("a password")),
    (
        One,
        "--host --port --uds --root-path --ssl-keyfile --ssl-certfile --ssl-ca-certs --ssl-cert-reqs --ssl-ciphers \
         --allowed-origins --allowed-methods --allowed-headers --h11-max-incomplete-event-size \
         --h11-max-header-count --data-parallel-supervisor-port --dp-supervisor-probe-interval-s \
         --dp-supervisor-probe-timeout-s --dp-supervisor-probe-failure-threshold --shutdown-timeout",
        Ignored(LISTENING),
    ),
    (
        Switch,
        "--allow-credentials --enable-ssl-refresh --disable-fastapi-docs --enable-offline-docs --grpc \
         --enable-tokenizer-info-endpoint --enable-request-id-headers --enable-server-load-tracking",
        Ignored(LISTENING),
    ),
    (
        One,
        "--api-server-count|-asc --renderer-num-workers --tokenizer --tokenizer-mode --middleware --io-processor-plugin",
        Ignored(FRONT_END),
    ),
    (Switch, "--skip-tokenizer-init --tokens-only --disable-frontend-multiprocessing", Ignored(FRONT_END)),
    (
        One,
        "--chat-template --chat-template-content-format --default-chat-template-kwargs --response-role \
         --tool-call-parser --tool-parser-plugin --tool-server --reasoning-parser --reasoning-parser-plugin \
         --reasoning-config --generation-config --override-generation-config",
        Ignored(TEXT_LENGTHS),
    ),
    (
        One,
        "--structured-outputs-config --guided-decoding-backend --max-logprobs --logprobs-mode --fingerprint-mode \
         --fingerprint-value",
        Ignored("the workload's requests ask for plain tokens"),
    ),
    (
        Switch,
        "--trust-request-chat-template --enable-auto-tool-choice --exclude-tools-when-tool-choice-none \
         --return-tokens-as-token-ids --enable-prompt-tokens-details --enable-force-include-usage",
        Ignored(TEXT_LENGTHS),
    ),
    (One, "--seed", Ignored("token values do not matter to time")),
    (
        One,
        "--uvicorn-log-level --log-config-file --max-log-len --disable-access-log-for-endpoints --kv-events-config \
         --show-hidden-metrics-for-version --otlp-traces-endpoint --kv-cache-metrics-sample",
        Ignored(LOGGING),
    ),
    (
        Switch,
        "--disable-log-requests --enable-log-requests --enable-log-outputs --enable-log-deltas --log-error-stack \
         --disable-uvicorn-access-log --aggregate-engine-logging --kv-cache-metrics --cudagraph-metrics \
         --enable-mfu-metrics --enable-logging-iteration-details --jit-monitor-verbose",
        Ignored(LOGGING),
    ),
    (
        One,
        "--download-dir --revision --code-revision --tokenizer-revision --config-format --pt-load-map-location \
         --safetensors-load-strategy --safetensors-prefetch-num-threads --safetensors-prefetch-block-size \
         --model-loader-extra-config --max-parallel-loading-workers --weight-transfer-config",
        Ignored(LOADING),
    ),
    (Many, "--ignore-patterns", Ignored(LOADING)),
    (
        Switch,
        "--trust-remote-code --use-tqdm-on-load --fail-on-environ-validation --allow-deprecated-quantization \
         --calculate-kv-scales --enable-sleep-mode --enable-cumem-allocator",
        Ignored(LOADING),
    ),
    (
        One,
        "--media-io-kwargs --mm-processor-kwargs --mm-processor-cache-gb --mm-processor-cache-type --mm-tensor-ipc \
         --mm-shm-cache-max-object-size-mb --mm-encoder-tp-mode --mm-encoder-attn-backend --mm-encoder-attn-dtype \
         --mm-encoder-fp8-scale-path --mm-encoder-fp8-scale-save-path --mm-encoder-fp8-scale-save-margin \
         --allowed-local-media-path",
        Ignored(PLAIN_TEXT),
    ),
    (Many, "--allowed-media-domains", Ignored(PLAIN_TEXT)),
    (
        Switch,
        "--language-model-only --interleave-mm-strings --disable-chunked-mm-input --enable-flash-late-interaction",
        Ignored(PLAIN_TEXT),
    ),
    (
        One,
        "--master-addr --master-port --distributed-timeout-seconds --cpu-distributed-timeout-seconds",
        Ignored(PLACEMENT),
    ),
    (Many, "--numa-bind-nodes --numa-bind-cpus", Ignored(PLACEMENT)),
    (Switch, "--numa-bind", Ignored(PLACEMENT)),
    (One, "--prefix-caching-hash-algo", Ignored("hashing is not priced")),
    (One, "--swap-space", Ignored("vLLM 0.24 never swaps: it computes preempted requests again")),
    // Change time in a way that is not modelled.
    (One, "--config", Refused("settings kept in a file are not read: write them on the command line")),
    (
        One,
        "--speculative-config|-sc --spec-method --spec-model --spec-tokens",
        Refused("speculative decoding is not modelled"),
    ),
    (One, "--diffusion-config|-dc", Refused("diffusion decoding is not modelled")),
    (One, "--pipeline-parallel-size|-pp", RefusedUnless(&["1"], "pipeline stages are not modelled")),
    (
        One,
        "--data-parallel-size|-dp --data-parallel-size-local|-dpl",
        RefusedUnless(&["1"], "data-parallel ranks in one server are not modelled: raise `count` instead"),
    ),
    (
        One,
        "--data-parallel-rank|-dpn --data-parallel-start-rank|-dpr --data-parallel-address|-dpa \
         --data-parallel-rpc-port|-dpp",
        Refused("data-parallel ranks are not modelled: raise `count` instead"),
    ),
    (One, "--data-parallel-backend|-dpb", RefusedUnless(&["mp"], "data-parallel ranks are not modelled")),
    (
        Switch,
        "--data-parallel-hybrid-lb|-dph --data-parallel-external-lb|-dpe --data-parallel-multi-port-external-lb \
         --headless --disable-nccl-for-dp-synchronization",
        RefusedUnless(OFF, "data-parallel ranks are not modelled: raise `count` instead"),
    ),
    (
        One,
        "--decode-context-parallel-size|-dcp --prefill-context-parallel-size|-pcp --dcp-kv-cache-interleave-size \
         --cp-kv-cache-interleave-size",
        RefusedUnless(&["1"], "context parallelism is not modelled"),
    ),
    (One, "--dcp-comm-backend", RefusedUnless(&["ag_rs"], "context parallelism is not modelled")),
    (One, "--nnodes|-n", RefusedUnless(&["1"], "replicas over several machines are not modelled")),
    (One, "--node-rank|-r", RefusedUnless(&["0"], "replicas over several machines are not modelled")),
    (
        One,
        "--distributed-executor-backend",
        RefusedUnless(&["mp", "uni"], "the cost of this executor's messages is not modelled"),
    ),
    (
        Switch,
        "--enable-ep-weight-filter --enable-elastic-ep --enable-eplb --enable-dbo --enable-return-routed-experts",
        RefusedUnless(OFF, "of expert parallelism only whole experts on each card are modelled"),
    ),
    (
        One,
        "--all2all-backend --eplb-config --expert-placement-strategy --ubatch-size --dbo-decode-token-threshold \
         --dbo-prefill-token-threshold",
        Refused("expert parallelism is not modelled"),
    ),
    (
        Switch,
        "--enable-lora --fully-sharded-loras --enable-tower-connector-lora --specialize-active-lora \
         --enable-mixed-moe-lora-format",
        RefusedUnless(OFF, "LoRA adapters are not modelled"),
    ),
    (
        One,
        "--max-loras --max-lora-rank --lora-dtype --max-cpu-loras --default-mm-loras",
        Refused("LoRA adapters are not modelled"),
    ),
    (Many, "--lora-modules --lora-target-modules", Refused("LoRA adapters are not modelled")),
    (One, "--kv-transfer-config --ec-transfer-config", Refused("transfers between engines are not modelled")),
    (
        One,
        "--cpu-offload-gb --offload-group-size",
        RefusedUnless(&["0", "0.0"], "weights off the GPU are not modelled"),
    ),
    (One, "--offload-backend", RefusedUnless(&["auto"], "weights off the GPU are not modelled")),
    (One, "--offload-num-in-group --offload-prefetch-step", Refused("weights off the GPU are not modelled")),
    (Many, "--cpu-offload-params --offload-params", Refused("weights off the GPU are not modelled")),
    (One, "--kv-offloading-size --kv-offloading-backend", Refused("KV blocks off the GPU are not modelled")),
    (
        One,
        "--kv-cache-memory-bytes",
        Refused("write the number of blocks instead: --num-gpu-blocks-override"),
    ),
    (Many, "--kv-cache-dtype-skip-layers", Refused("a KV cache of several types is not modelled")),
    (
        Switch,
        "--kv-sharing-fast-prefill",
        RefusedUnless(OFF, "KV blocks shared between layers are not modelled"),
    ),
    (
        One,
        "--mamba-backend --mamba-cache-dtype --mamba-ssm-cache-dtype --mamba-block-size --mamba-cache-mode \
         --mamba-cache-philox-rounds --gdn-prefill-backend",
        Refused("layers other than full attention are not modelled"),
    ),
    (
        Switch,
        "--enable-mamba-cache-stochastic-rounding --disable-sliding-window --disable-hybrid-kv-cache-manager",
        RefusedUnless(OFF, "layers other than full attention are not modelled"),
    ),
    (
        One,
        "--dtype",
        RefusedUnless(&["auto", "bfloat16", "float16", "half"], "weights of 32 bits are not modelled"),
    ),
    (One, "--quantization-config", Refused("only `--quantization fp8` is modelled")),
    (
        One,
        "--load-format",
        RefusedUnless(
            &[
                "auto",
                "pt",
                "safetensors",
                "npcache",
                "dummy",
                "tensorizer",
                "sharded_state",
                "mistral",
                "modelexpress",
                "runai_streamer",
                "runai_streamer_sharded",
                "fastsafetensors",
                "instanttensor",
            ],
            "weights stored this way are quantized, which is not modelled",
        ),
    ),
    (
        One,
        "--hf-config-path --hf-overrides",
        Refused("it changes the model's shape: give a config.json as the model"),
    ),
    (One, "--model-impl", RefusedUnless(&["auto", "vllm"], "other implementations have other step times")),
    (
        One,
        "--runner --task",
        RefusedUnless(&["auto", "generate"], "only models that generate text are modelled"),
    ),
    (One, "--convert", RefusedUnless(&["auto", "none"], "only models that generate text are modelled")),
    (One, "--pooler-config", Refused("only models that generate text are modelled")),
    (Switch, "--enable-prompt-embeds", RefusedUnless(OFF, "prompts of embeddings are not modelled")),
    (One, "--limit-mm-per-prompt --video-pruning-rate", Refused("images, audio and video are not modelled")),
    (
        Switch,
        "--enable-mm-embeds --mm-encoder-only --skip-mm-profiling",
        RefusedUnless(OFF, "images, audio and video are not modelled"),
    ),
    (
        One,
        "--max-num-partial-prefills --max-long-partial-prefills",
        RefusedUnless(&["1"], "vLLM 0.24 itself refuses concurrent partial prefills"),
    ),
    (
        One,
        "--prefill-schedule-interval",
        RefusedUnless(&["1"], "prefills held back for some steps are not modelled"),
    ),
    (One, "--stream-interval", RefusedUnless(&["1"], "tokens sent in groups are not modelled")),
    (
        One,
        "--performance-mode",
        RefusedUnless(
            &["balanced"],
            "write the --max-num-batched-tokens and --max-num-seqs that it stands for",
        ),
    ),
    (One, "--optimization-level", RefusedUnless(&["2"], GRAPHS)),
    (One, "--compilation-config|-cc --max-cudagraph-capture-size", Refused(GRAPHS)),
    (Many, "--cudagraph-capture-sizes", Refused(GRAPHS)),
    (One, "--attention-backend --moe-backend --linear-backend", RefusedUnless(&["auto"], KERNELS)),
    (
        One,
        "--attention-config|-ac --kernel-config --ir-op-priority --override-attention-dtype",
        Refused(KERNELS),
    ),
    (Switch, "--enable-flashinfer-autotune", Refused(KERNELS)),
    (Switch, "--disable-custom-all-reduce --use-fp64-gumbel", RefusedUnless(OFF, KERNELS)),
    (Switch, "--disable-cascade-attn", RefusedUnless(&["true"], KERNELS)),
    (One, "--scheduler-cls --worker-cls --worker-extension-cls --additional-config", Refused(OWN_CODE)),
    (Many, "--logits-processors", Refused(OWN_CODE)),
    (One, "--profiler-config", Refused(PROFILING)),
    (Many, "--collect-detailed-traces", Refused(PROFILING)),
    (Switch, "--enable-layerwise-nvtx-tracing --ray-workers-use-nsight", RefusedUnless(OFF, PROFILING)),
    (
        Switch,
        "--disable-log-stats",
        RefusedUnless(OFF, "without statistics, gateways see no load of this replica"),
    ),
];

/// A flag by one of its names.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// Its full name, the same for every alias.
    pub(super) name: &'static str,
    /// What follows it.
    pub(super) takes: Takes,
    /// What becomes of it.
    pub(super) rule: Rule,
    /// Whether it was written with `--no-`.
    pub(super) negated: bool,
}

/// The flag that vLLM understands by `written`: a name, an alias, a `--no-` form, or, as `argparse` has it,
/// the beginning of exactly one of these.
pub(super) fn find(written: &str) -> Option<Found> {
    let spelled = |matches: &dyn Fn(&str, &str) -> bool| -> Vec<Found> {
        let plain = all().filter(|(spelling, _)| spelling.split('|').any(|name| matches(name, written)));
        let plain = plain.map(|(spelling, row)| found(spelling, row, false));
        let positive = written.strip_prefix("--no-").map(|rest| format!("--{rest}"));
        let negated = all().filter(|(spelling, row)| {
            let positive = positive.as_deref();
            row.0 == Switch
                && positive.is_some_and(|flag| spelling.split('|').any(|name| matches(name, flag)))
        });
        plain.chain(negated.map(|(spelling, row)| found(spelling, row, true))).collect()
    };
    if let Some(exact) = spelled(&|name, flag| name == flag).first() {
        return Some(*exact);
    }
    match spelled(&|name, flag| flag.len() > 2 && flag.starts_with("--") && name.starts_with(flag))[..] {
        [only] => Some(only),
        _ => None,
    }
}

/// The known flag that looks most like `written`, if any does.
pub(super) fn nearest(written: &str) -> Option<String> {
    let names = all().flat_map(|(spelling, row)| {
        let name = full_name(spelling);
        let negated = (row.0 == Switch).then(|| name.replacen("--", "--no-", 1));
        std::iter::once(name.to_string()).chain(negated)
    });
    names
        .map(|name| (strsim::damerau_levenshtein(&name, written), name))
        .filter(|(distance, name)| distance * 3 <= name.len())
        .min()
        .map(|(_, name)| name)
}

type Row = (Takes, &'static str, Rule);

fn all() -> impl Iterator<Item = (&'static str, &'static Row)> {
    FLAGS.iter().flat_map(|row| row.1.split_whitespace().map(move |spelling| (spelling, row)))
}

fn found(spelling: &'static str, row: &Row, negated: bool) -> Found {
    Found { name: full_name(spelling), takes: row.0, rule: row.2, negated }
}

fn full_name(spelling: &'static str) -> &'static str {
    spelling.split_once('|').map_or(spelling, |(name, _)| name)
}

/// Every name and alias.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    all().flat_map(|(spelling, _)| spelling.split('|'))
}
