//! A scenario as written: the keys of the TOML file, their defaults, and nothing resolved.
//!
//! Unknown keys are refused. Docs of the fields are what `tailcast schema` shows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod autoscaler;
mod events;
mod prediction;
mod workload;

pub use autoscaler::AutoscalerFile;
pub use events::{
    AdmissionFile, AnyWord, BackoffFile, ClientsFile, EventFile, EventKindFile, FairnessFile, HealthFile,
    HedgingFile, NeverWord, QueueFile, RestartFile, RetriesFile, SaturationFile, SheddingFile, SpacingFile,
    TimeoutFile, WhichGatewayFile, WhomFile, WhomWord,
};
pub use prediction::{BucketValueFile, PredictionFile, PredictorFile};
pub use workload::{
    ArrivalsFile, ClassFile, LengthsFile, LevelFile, MixtureFile, ModulationFile, OverLimitFile,
    PrefixesFile, ProcessFile, ServeGenFile, SessionsFile, StateFile, ThinkFile, TimeUnitFile, UsersFile,
    WorkloadFile,
};

/// A tailcast scenario: a workload, a fleet, a router, and how long to look.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioFile {
    /// What this scenario shows, in a few words.
    #[serde(default)]
    pub title: String,
    /// All randomness follows from this number.
    #[serde(default = "one")]
    pub seed: u64,
    /// Independent repetitions of what is drawn.
    #[serde(default = "one_u32")]
    pub repeat: u32,
    /// What differs between repetitions of a replayed trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resample: Option<ResampleFile>,
    /// Requests sent in the first seconds are left out of the statistics, not out of the run. "mser-5": as many as make the
    /// standard error of what follows least.
    #[serde(default)]
    pub warmup_s: WarmupFile,
    /// Requests sent in the last seconds before `end` are left out of the statistics: they had no time to end.
    #[serde(default)]
    pub cooldown_s: f64,
    /// Length of the windows in which a run is shown over time, seconds; so that no more than sixty fit with some 150 requests
    /// each, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_s: Option<f64>,
    /// "drain": when the last request has ended; or seconds after the start.
    #[serde(default)]
    pub end: EndFile,
    /// Policies that `compare` sets side by side; six of different kinds, if neither these nor variants are given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Where requests come from.
    pub workload: WorkloadFile,
    /// One table a kind of replica.
    pub replicas: Vec<ReplicaFile>,
    /// How requests are sent to replicas.
    #[serde(default)]
    pub router: RouterFile,
    /// Delays between client, gateway and replica.
    #[serde(default)]
    pub network: NetworkFile,
    /// Who says how many replicas there should be; nobody unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaler: Option<AutoscalerFile>,
    /// What befalls replicas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventFile>,
    /// What clients put up with.
    #[serde(default, skip_serializing_if = "ClientsFile::is_default")]
    pub clients: ClientsFile,
    /// Objectives.
    #[serde(default)]
    pub slo: SloFile,
    /// What `compare` sets side by side beyond policies: a name, and keys that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    pub variants: Vec<toml::Table>,
}

fn one() -> u64 {
    1
}

fn one_u32() -> u32 {
    1
}

/// What differs between repetitions of a replayed trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResampleFile {
    /// Twenty stretches of equal length, drawn with replacement and joined: other hours of the same kind.
    TimeBlocks,
    /// Each request is moved by up to half the mean gap: the same hour, other coincidences.
    Jitter,
    /// Whole sessions, drawn with replacement; where a session began, another may begin: other users of the same kind.
    Sessions,
}

/// How long the warm-up is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected seconds, or \"mser-5\"")]
pub enum WarmupFile {
    /// By a rule.
    Rule(WarmupRuleFile),
    /// Seconds.
    Seconds(f64),
}

impl Default for WarmupFile {
    fn default() -> Self {
        WarmupFile::Seconds(0.0)
    }
}

/// Rules that find the end of the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WarmupRuleFile {
    /// The marginal standard error rule on means of five requests (White, Cobb and Spratt, 2000).
    #[serde(rename = "mser-5")]
    Mser5,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected \"drain\", or seconds after the start")]
pub enum EndFile {
    /// When the last request has ended.
    Word(EndWord),
    /// Seconds after the start.
    Seconds(f64),
}

impl Default for EndFile {
    fn default() -> Self {
        EndFile::Word(EndWord::Drain)
    }
}

/// Ends that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndWord {
    /// When the last request has ended.
    Drain,
}

/// One kind of replica, by vLLM's flags.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplicaFile {
    /// How many of this kind.
    #[serde(default = "one_u32")]
    pub count: u32,
    /// A name of `tailcast list models`, a Hugging Face id, or the path of a `config.json`, relative to this scenario.
    pub model: String,
    /// A name of `tailcast list gpus`.
    pub gpu: String,
    /// The engine's version: 0.24 is the one modelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vllm_version: Option<String>,
    /// GPUs of one replica.
    #[serde(default = "one_u32")]
    pub tensor_parallel_size: u32,
    /// Share of the card's memory that the engine may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_utilization: Option<f64>,
    /// Longest sequence; the model's own limit unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u32>,
    /// Token budget of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_num_batched_tokens: Option<u32>,
    /// Longest running list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_num_seqs: Option<u32>,
    /// Tokens of a KV block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u32>,
    /// KV blocks, instead of what the card's memory allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_gpu_blocks_override: Option<u32>,
    /// Whether blocks are kept for later requests with the same prefix.
    #[serde(default = "yes")]
    pub enable_prefix_caching: bool,
    /// Whether a prompt may be computed over several steps.
    #[serde(default = "yes")]
    pub enable_chunked_prefill: bool,
    /// Longest chunk of a prompt; 0 is no limit.
    #[serde(default)]
    pub long_prefill_token_threshold: u32,
    /// Order of the waiting queue.
    #[serde(default)]
    pub scheduling_policy: SchedulingPolicyFile,
    /// Whether a step is composed while the one before runs.
    #[serde(default = "yes")]
    pub async_scheduling: bool,
    /// KV cache: "auto" is the model's own type.
    #[serde(default)]
    pub kv_cache_dtype: KvCacheDtypeFile,
    /// Weights: "none" is the model's own type.
    #[serde(default)]
    pub quantization: QuantizationFile,
    /// Without CUDA graphs.
    #[serde(default)]
    pub enforce_eager: bool,
    /// Whole experts shared out among the cards, and not slices of each.
    #[serde(default)]
    pub enable_expert_parallel: bool,
    /// Admission wants room for the whole known sequence.
    #[serde(default = "yes")]
    pub scheduler_reserve_full_isl: bool,
    /// Share of the blocks that stay free after an admission beside running requests.
    #[serde(default)]
    pub watermark: f64,
    /// Labels of its pods, by key: llm-d's `by-label`, `decode-filter` and `prefill-filter` read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How many times as long as that steps take in truth: slow machines, of which no gateway knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowdown: Option<f64>,
    /// Coefficient of variation by which single steps scatter around their price, at random and each by itself; 0 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_time_jitter: Option<f64>,
    /// From the start of a process until it is ready, seconds; by the model's size and layers, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_up_s: Option<f64>,
    /// How long a step takes.
    #[serde(default)]
    pub step_time: StepTimeFile,
}

fn yes() -> bool {
    true
}

/// Order of the waiting queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SchedulingPolicyFile {
    /// First come, first served.
    #[default]
    Fcfs,
    /// By the requests' priorities.
    Priority,
}

/// KV cache types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KvCacheDtypeFile {
    /// The model's own.
    #[default]
    Auto,
    /// One byte an element.
    Fp8,
}

/// Weight types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QuantizationFile {
    /// The model's own.
    #[default]
    None,
    /// One byte an element.
    Fp8,
}

/// Where step times come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepTimeModelFile {
    /// From the catalogue's figures for the card and the model.
    Roofline,
    /// From measured times of one layer's parts, in the folder of `profile`.
    Profile,
    /// From the catalogue's figures times factors that `tailcast calibrate` fitted, in the file of `calibration`.
    Calibrated,
    /// base + per token + per token of context, and a host time.
    Affine,
}

/// How long a step takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StepTimeFile {
    /// "profile" where `profile` is given, "calibrated" where `calibration` is, else "roofline".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<StepTimeModelFile>,
    /// Profile: a folder with `tp1/dense.csv` and its like, relative to this scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Calibrated: a file that `tailcast calibrate` wrote, relative to this scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<String>,
    /// Affine: of every step, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_us: Option<f64>,
    /// Affine: of each token computed, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_token_us: Option<f64>,
    /// Affine: of each token of context, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_context_token_ns: Option<f64>,
    /// Affine: host time of every step, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_us: Option<f64>,
}

impl StepTimeFile {
    /// The model that is named, or that follows from the other keys.
    pub fn model(&self) -> StepTimeModelFile {
        let by_keys = match (&self.profile, &self.calibration) {
            (Some(_), _) => StepTimeModelFile::Profile,
            (None, Some(_)) => StepTimeModelFile::Calibrated,
            (None, None) => StepTimeModelFile::Roofline,
        };
        self.model.unwrap_or(by_keys)
    }
}

/// How requests are sent to replicas.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouterFile {
    /// A name of `tailcast list policies`.
    pub policy: String,
    /// Gateways, each with its own private view; clients take them in turn.
    pub replicas: u32,
    /// Between a decision and its effect on the counters, milliseconds.
    pub decision_gap_ms: f64,
    /// The policy's own parameters.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub parameters: toml::Table,
    /// What it sees, and how late; the product's own unless given.
    pub view: ViewFile,
    /// What it lets in before its policy is asked.
    #[serde(skip_serializing_if = "AdmissionFile::is_default")]
    pub admission: AdmissionFile,
    /// How it learns who is up.
    #[serde(skip_serializing_if = "HealthFile::is_default")]
    pub health: HealthFile,
    /// What it does about tries that never began.
    #[serde(skip_serializing_if = "RetriesFile::is_default")]
    pub retries: RetriesFile,
    /// When it sends a second copy; never unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedging: Option<HedgingFile>,
}

impl Default for RouterFile {
    fn default() -> Self {
        RouterFile {
            policy: "round-robin".into(),
            replicas: 1,
            decision_gap_ms: 0.0,
            parameters: toml::Table::new(),
            view: ViewFile::default(),
            admission: AdmissionFile::default(),
            health: HealthFile::default(),
            retries: RetriesFile::default(),
            hedging: None,
        }
    }
}

/// What a gateway sees, and how late.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ViewFile {
    /// Gauges as of the decision. No product has this; the result is marked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh: Option<bool>,
    /// Between two reads of the replicas' gauges, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_interval_ms: Option<f64>,
    /// From a read of gauges until the gateway has them, milliseconds; less than the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_ms: Option<f64>,
    /// Share of reads that fail, replica by replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_loss: Option<f64>,
    /// Gauges older than this count as those of a saturated replica, milliseconds; llm-d's detector has 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness_limit_ms: Option<f64>,
    /// From the output with which KV events leave an engine until gateways have them, milliseconds; 5 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_event_delay_ms: Option<f64>,
    /// Share of batches of KV events, one a step in which something changed, that get lost on the way to a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_event_loss: Option<f64>,
    /// A gateway that sees by a later batch that one is missing asks for it again and has it after so many milliseconds. Unless
    /// given nobody asks, as in llm-d; Dynamo's router does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_event_replay_ms: Option<f64>,
    /// Blocks that a gateway's index of KV events holds, over all replicas; those neither told nor found for longest go first. Any
    /// number unless given; llm-d's `inMemoryConfig.size` is 100,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_index_blocks: Option<u64>,
    /// Replicas that the index knows of one block, those told last; llm-d's `podCacheSize`. Unless given 10 with llm-d's policies and
    /// any number with others; 0 is any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_index_replicas_per_block: Option<u64>,
    /// What the index was told so long ago is forgotten, seconds; never unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_index_ttl_s: Option<f64>,
    /// Characters that a token of this traffic has. Gateways without a tokenizer count four; unless given, everybody knows how many
    /// tokens a prompt has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub characters_per_token: Option<f64>,
    /// Gateways tell each other at once what they send and hear, as through a shared store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
}

/// Delays, each in one direction, milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkFile {
    /// Client to gateway.
    pub client_to_router_ms: f64,
    /// Gateway to replica.
    pub router_to_replica_ms: f64,
    /// The replica's front end: HTTP and tokenising.
    pub frontend_ms: f64,
    /// The replica's front end for each token after the first, on the way back, microseconds.
    pub per_token_us: f64,
}

/// Objectives.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SloFile {
    /// Of each request, as `vllm bench serve --goodput` has it.
    pub goodput: LimitsFile,
    /// Of the run's 99th percentiles.
    pub p99: LimitsFile,
}

/// Limits in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsFile {
    /// On time to first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// On time per output token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot_ms: Option<f64>,
    /// On end-to-end latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e2e_ms: Option<f64>,
}
