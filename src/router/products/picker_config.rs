//! An `EndpointPickerConfig` of llm-d: filters, scorers, picker and prefix producer as its YAML.
//!
//! Knows the plugins' parameters by the names that llm-d's documents have. What it has no name for is handed back, so that nobody
//! takes it for set.

use std::num::NonZeroUsize;

use serde::Serialize;

use super::{Chosen, Written, limits_set};
use crate::router::epp::filters::FilterPlugin;
use crate::router::epp::latency::LatencyProducer;
use crate::router::epp::pickers::PickerPlugin;
use crate::router::epp::scorers::ScorerPlugin;
use crate::router::epp::{POD_CACHE_SIZE, Parameters, PrefixProducer};
use crate::router::kv_index::IndexLimits;

/// Parameters by their names here and there.
const NAMES: [(&str, &str); 18] = [
    ("affinity_threshold", "affinityThreshold"),
    ("allows_no_label", "allowsNoLabel"),
    ("block_size_tokens", "blockSizeTokens"),
    ("enable_filtering", "enableFiltering"),
    ("exploration_probability", "explorationProbability"),
    ("idle_threshold", "idleThreshold"),
    ("kv_cache_util_threshold", "kvCacheUtilThreshold"),
    ("label", "label"),
    ("lru_capacity_per_server", "lruCapacityPerServer"),
    ("max_busy_score", "maxBusyScore"),
    ("max_concurrency", "maxConcurrency"),
    ("max_ttft_penalty_ms", "maxTTFTPenaltyMs"),
    ("peak_prefill_throughput", "peakPrefillThroughput"),
    ("queue_depth_threshold", "queueDepthThreshold"),
    ("strategy", "headroomSelectionStrategy"),
    ("tpot_weight", "tpotWeight"),
    ("ttft_weight", "ttftWeight"),
    ("valid_values", "validValues"),
];

/// The lists of a configuration while it is written.
#[derive(Default)]
struct Lists {
    plugins: String,
    profile: String,
    types: Vec<String>,
    unsaid: toml::Table,
}

impl Lists {
    /// Adds a plugin; returns what it is called: by its type, and with a number from the second of a type on.
    fn add(&mut self, kind: &str, parameters: &toml::Table) -> String {
        let before = self.types.iter().filter(|other| *other == kind).count();
        self.types.push(kind.to_string());
        self.plugins += &format!("- type: {kind}\n");
        let name = match before {
            0 => kind.to_string(),
            _ => format!("{kind}-{}", before + 1),
        };
        if before > 0 {
            self.plugins += &format!("  name: {name}\n");
        }
        let mut said = String::new();
        for (key, value) in parameters {
            match NAMES.iter().find(|(here, _)| here == key) {
                Some((_, there)) => said += &format!("    {there}: {}\n", yaml(value)),
                None => {
                    self.unsaid.insert(format!("{kind}.{key}"), value.clone());
                }
            }
        }
        if !said.is_empty() {
            self.plugins += &format!("  parameters:\n{said}");
        }
        name
    }

    /// Makes a plugin part of the profile.
    fn refer(&mut self, name: &str, weight: Option<f64>) {
        self.profile += &format!("  - pluginRef: {name}\n");
        if let Some(weight) = weight {
            self.profile += &format!("    weight: {weight}\n");
        }
    }
}

/// A value as YAML: scalars and lists of them are alike in both, but for whole numbers that are written as such.
fn yaml(value: &toml::Value) -> String {
    match value {
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Array(values) => {
            format!("[{}]", values.iter().map(yaml).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A plugin's type and those of its parameters that are not its defaults.
fn taken_apart<P: Serialize + serde::de::DeserializeOwned>(plugin: &P) -> (String, toml::Table) {
    let mut keys = toml::Table::try_from(plugin).unwrap_or_default();
    let kind = keys.get("type").and_then(toml::Value::as_str).unwrap_or_default().to_string();
    let bare = toml::Table::from_iter([("type".to_string(), toml::Value::from(kind.clone()))]);
    // Where a plugin has no defaults all it says is its own.
    let usual = bare.try_into::<P>().ok().and_then(|plugin| toml::Table::try_from(&plugin).ok());
    let usual = usual.unwrap_or_default();
    keys.retain(|key, value| key != "type" && key != "weight" && usual.get(key) != Some(value));
    (kind, keys)
}

/// Replicas of a block that the index can be told to know.
const MOST_PODS_PER_KEY: usize = 65_535;

/// Tokens of a block unless the token processor is told otherwise; it must be the engines'.
const BLOCK_SIZE: u32 = 16;

/// The parameters of the precise producer that are not its defaults, and what it has no name for.
fn of_index(limits: IndexLimits, block_size: u32, unsaid: &mut toml::Table) -> String {
    let mut text = String::new();
    if block_size != BLOCK_SIZE {
        text += &format!("    tokenProcessorConfig:\n      blockSize: {block_size}\n");
    }
    let pods = limits.replicas_per_block.map_or(MOST_PODS_PER_KEY, NonZeroUsize::get).min(MOST_PODS_PER_KEY);
    if limits.blocks.is_some() || pods != POD_CACHE_SIZE {
        text += "    indexerConfig:\n      kvBlockIndexConfig:\n        inMemoryConfig:\n";
        if let Some(blocks) = limits.blocks {
            text += &format!("          size: {blocks}\n");
        }
        text += &format!("          podCacheSize: {pods}\n");
    }
    unsaid.extend(limits_set(IndexLimits { ttl: limits.ttl, ..IndexLimits::default() }));
    text
}

/// The configuration that has these parameters, in place of those of `chosen`, and the index of KV events that it has.
pub(super) fn written(parameters: &Parameters, chosen: Chosen<'_>) -> Written {
    let mut lists = Lists::default();
    match &parameters.prefix {
        PrefixProducer::ApproxPrefixCacheProducer { parameters } => {
            let keys = |own| toml::Table::try_from(own).unwrap_or_default();
            let (mut own, usual) = (keys(parameters), keys(&Default::default()));
            own.retain(|key, value| usual.get(key) != Some(value));
            if !own.is_empty() {
                lists.add("approx-prefix-cache-producer", &own);
            }
        }
        PrefixProducer::PrecisePrefixCacheProducer { speculative_ttl_s } => {
            lists.add("precise-prefix-cache-producer", &toml::Table::new());
            let limits = chosen.kv_index.unwrap_or_default();
            let mut own = of_index(limits, chosen.block_size, &mut lists.unsaid);
            if *speculative_ttl_s > 0.0 {
                own += &format!("    speculativeIndexing: true\n    speculativeTTL: {speculative_ttl_s}s\n");
            }
            if !own.is_empty() {
                lists.plugins += &format!("  parameters:\n{own}");
            }
        }
    }
    let predicts = parameters.filters.iter().any(FilterPlugin::reads_predictions)
        || parameters.scorers.iter().any(ScorerPlugin::reads_predictions);
    if predicts {
        lists.add("predicted-latency-producer", &toml::Table::new());
        // Objectives come with requests there, in headers.
        let own = toml::Table::try_from(&parameters.latency).unwrap_or_default();
        let usual = toml::Table::try_from(LatencyProducer::default()).unwrap_or_default();
        let own = own.into_iter().filter(|(key, value)| usual.get(key) != Some(value));
        lists.unsaid.extend(own.map(|(key, value)| (format!("latency.{key}"), value)));
    }
    for filter in &parameters.filters {
        let (kind, keys) = taken_apart(filter);
        let name = lists.add(&kind, &keys);
        lists.refer(&name, None);
    }
    for scorer in &parameters.scorers {
        let (kind, mut keys) = taken_apart(scorer);
        if kind == "script-scorer" {
            keys.remove("source");
            lists.unsaid.insert(kind, toml::Value::Table(keys));
            continue;
        }
        let name = lists.add(&kind, &keys);
        lists.refer(&name, Some(scorer.weight()));
    }
    if parameters.picker != PickerPlugin::MaxScorePicker {
        let kind = toml::Value::try_from(parameters.picker).ok();
        let kind = kind.as_ref().and_then(toml::Value::as_str).unwrap_or_default();
        let name = lists.add(kind, &toml::Table::new());
        lists.refer(&name, None);
    }
    let Lists { plugins, profile, unsaid, .. } = lists;
    let text = format!("plugins:\n{plugins}schedulingProfiles:\n- name: default\n  plugins:\n{profile}");
    Written { text: text.trim_end().to_string(), unsaid }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parameters: &str) -> Written {
        let mut all = toml::Table::try_from(Parameters::default()).unwrap();
        all.extend(parameters.parse::<toml::Table>().unwrap());
        written(&all.try_into().unwrap(), chosen(IndexLimits::default(), 16))
    }

    fn chosen(kv_index: IndexLimits, block_size: u32) -> Chosen<'static> {
        static NOTHING: std::sync::LazyLock<toml::Table> = std::sync::LazyLock::new(toml::Table::new);
        Chosen { parameters: &NOTHING, kv_index: Some(kv_index), block_size }
    }

    #[test]
    fn defaults_are_left_out_and_the_rest_is_written() {
        let plain = of("");
        assert!(plain.unsaid.is_empty());
        assert_eq!(
            plain.text,
            "plugins:\n- type: queue-scorer\n- type: kv-cache-utilization-scorer\n- type: prefix-cache-scorer\n\
             schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n    weight: 2\n  \
             - pluginRef: kv-cache-utilization-scorer\n    weight: 2\n  - pluginRef: prefix-cache-scorer\n    weight: 3"
        );
        let own = of(
            "picker = \"random-picker\"\nprefix = { type = \"approx-prefix-cache-producer\", parameters = { block_size_tokens = 16 } }\n\
             filters = [{ type = \"by-label\", label = \"tier\", valid_values = [\"fast\", \"near\"] }, \
             { type = \"by-label\", label = \"zone\", valid_values = [\"a\"] }]\n\
             scorers = [{ type = \"active-request-scorer\", weight = 1.5, idle_threshold = 2 }]",
        );
        assert!(own.unsaid.is_empty());
        for line in [
            "- type: approx-prefix-cache-producer\n  parameters:\n    blockSizeTokens: 16\n",
            "- type: by-label\n  parameters:\n    label: \"tier\"\n    validValues: [\"fast\", \"near\"]\n",
            "- type: by-label\n  name: by-label-2\n",
            "  - pluginRef: by-label-2\n",
            "- type: active-request-scorer\n  parameters:\n    idleThreshold: 2\n",
            "  - pluginRef: active-request-scorer\n    weight: 1.5\n  - pluginRef: random-picker",
        ] {
            assert!(own.text.contains(line), "{line}\n{}", own.text);
        }
    }

    #[test]
    fn predictions_bring_their_producer() {
        let own =
            of("latency = { ttft_slo_ms = 600.0 }\nfilters = [{ type = \"slo-headroom-tier-filter\" }]\n\
             scorers = [{ type = \"latency-scorer\", strategy = \"most\", ttft_weight = 1.0 }]");
        let lines = "plugins:\n- type: predicted-latency-producer\n- type: slo-headroom-tier-filter\n- type: latency-scorer\n  \
                     parameters:\n    ttftWeight: 1\n    headroomSelectionStrategy: \"most\"\n";
        assert!(own.text.starts_with(lines), "{}", own.text);
        assert_eq!(own.unsaid.to_string(), "\"latency.ttft_slo_ms\" = 600.0\n");
    }

    #[test]
    fn an_index_that_is_not_the_usual_one_is_written() {
        let parameters = Parameters {
            prefix: PrefixProducer::PrecisePrefixCacheProducer { speculative_ttl_s: 0.0 },
            ..Parameters::default()
        };
        let of = |blocks, replicas_per_block, ttl| {
            let [blocks, replicas_per_block] = [blocks, replicas_per_block].map(NonZeroUsize::new);
            written(&parameters, chosen(IndexLimits { blocks, replicas_per_block, ttl }, 16))
        };
        assert!(!of(0, 10, None).text.contains("parameters"));
        let ten = IndexLimits { replicas_per_block: NonZeroUsize::new(10), ..IndexLimits::default() };
        assert!(
            written(&parameters, chosen(ten, 32))
                .text
                .contains("    tokenProcessorConfig:\n      blockSize: 32\n")
        );
        let small = of(5_000, 64, Some(crate::time::Span::from_ms(2_500)));
        let lines = "- type: precise-prefix-cache-producer\n  parameters:\n    indexerConfig:\n      kvBlockIndexConfig:\n        \
                     inMemoryConfig:\n          size: 5000\n          podCacheSize: 64\n";
        assert!(small.text.contains(lines), "{}", small.text);
        assert_eq!(small.unsaid.to_string(), "\"router.view.kv_index_ttl_s\" = 2.5\n");
        assert!(of(0, 0, None).text.contains("podCacheSize: 65535\n"));
    }

    #[test]
    fn what_llm_d_has_no_name_for_is_handed_back() {
        let own = of("scorers = [{ type = \"prefix-cache-scorer\", absolute_weight = 0.5 }, \
             { type = \"script-scorer\", file = \"a.rhai\", source = \"fn score(a, b) { 1 }\" }]");
        let keys: Vec<&str> = own.unsaid.keys().map(String::as_str).collect();
        assert_eq!(keys, ["prefix-cache-scorer.absolute_weight", "script-scorer"]);
        assert!(!own.text.contains("script"));
    }
}
