//! Products that operators choose between: what each offers, and how the choice is written in its own configuration.
//!
//! Knows flags, YAML and stanzas as the products' documents have them (the catalogue of `docs/policies.md` names versions), and
//! where a product's own parameters differ from those a policy has here. Does not know which policy is best.
//!
//! - `offers`: the list
//! - `picker_config`: llm-d's configuration, plugin by plugin

use super::epp;
use super::kv_index::IndexLimits;

mod offers;
mod picker_config;

pub use offers::PRODUCTS;

/// A gateway one can install.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// As `compare --product` takes it.
    pub name: &'static str,
    /// What it offers.
    pub offers: &'static [Offer],
    /// How a configuration is written around a choice.
    pub frame: &'static str,
}

/// One of a product's policies.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Its name here.
    pub policy: &'static str,
    /// What it is called in a comparison: the product's own name where that has parameters of its own, else the policy's.
    pub name: &'static str,
    /// The product's parameters where they are not the policy's defaults, as TOML.
    pub parameters: &'static str,
    says: Says,
    /// How parameters that are set are written behind that: `{}` is the value, `{characters}` tokens counted as characters;
    /// `key=value` is of that value alone.
    flags: &'static [(&'static str, &'static str)],
}

/// How a policy is written.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// In these words; `{parameter=2}` is that parameter's value, 2 unless it is set.
    Words(&'static str),
    /// As the plugins of an endpoint picker, which a scenario may replace one by one.
    Plugins(fn() -> epp::Parameters),
    /// The same, made of the policy's own parameters.
    Composed(fn(&toml::Table) -> Option<epp::Parameters>),
}

/// What of a scenario a configuration says.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// Parameters of the policy that the scenario sets.
    pub parameters: &'a toml::Table,
    /// How much of KV events is remembered; none where the policy reads none.
    pub kv_index: Option<IndexLimits>,
    /// Tokens of the engines' blocks.
    pub block_size: u32,
}

/// A configuration, and parameters that it has no words for.
#[derive(Clone, Debug)]
pub struct Written {
    /// The product's own file, flags or stanza.
    pub text: String,
    /// What must be set by hand.
    pub unsaid: toml::Table,
}

/// Characters of a token, as products that see none count them.
const CHARACTERS_PER_TOKEN: i64 = 4;

impl Offer {
    const fn of(policy: &'static str, words: &'static str) -> Offer {
        Offer { policy, name: policy, parameters: "", says: Says::Words(words), flags: &[] }
    }

    const fn of_plugins(policy: &'static str, parameters: fn() -> epp::Parameters) -> Offer {
        Offer { policy, name: policy, parameters: "", says: Says::Plugins(parameters), flags: &[] }
    }

    const fn composed(policy: &'static str, plugins: fn(&toml::Table) -> Option<epp::Parameters>) -> Offer {
        Offer { policy, name: policy, parameters: "", says: Says::Composed(plugins), flags: &[] }
    }

    /// The product calls it so, and has these parameters.
    const fn with(self, name: &'static str, parameters: &'static str) -> Offer {
        Offer { name, parameters, ..self }
    }

    const fn flags(self, flags: &'static [(&'static str, &'static str)]) -> Offer {
        Offer { flags, ..self }
    }

    /// The parameters that it has when a scenario sets `own` of them. A composition that the product has a name for is that one,
    /// whatever a scenario composes.
    pub fn parameters(&self, own: &toml::Table) -> toml::Table {
        let mut all: toml::Table = self.parameters.parse().unwrap_or_default();
        if all.is_empty() || !matches!(self.says, Says::Plugins(_)) {
            all.extend(own.clone());
        }
        all
    }

    fn written(&self, chosen: Chosen<'_>) -> Written {
        let own = chosen.parameters;
        match self.says {
            Says::Words(words) => {
                let mut written = self.in_words(words, own);
                written.unsaid.extend(chosen.kv_index.map(limits_set).unwrap_or_default());
                written
            }
            Says::Composed(plugins) => match plugins(own) {
                Some(all) => picker_config::written(&all, chosen),
                None => Written { text: String::new(), unsaid: own.clone() },
            },
            Says::Plugins(defaults) => {
                let mut all = toml::Table::try_from(defaults()).unwrap_or_default();
                // Some of these policies have keys of their own, which no plugin has.
                let (plugins, others): (toml::Table, toml::Table) =
                    own.clone().into_iter().partition(|(key, _)| all.contains_key(key));
                all.extend(plugins);
                let all = all.try_into().unwrap_or_else(|_| defaults());
                let mut written = picker_config::written(&all, chosen);
                written.unsaid.extend(others);
                written
            }
        }
    }

    fn in_words(&self, words: &str, own: &toml::Table) -> Written {
        let usual = self.parameters(&toml::Table::new());
        let mut text = words.to_string();
        let mut unsaid = toml::Table::new();
        let mut placed = None;
        if let Some((before, rest)) = words.rsplit_once('{')
            && let Some((place, after)) = rest.split_once('}')
            && let Some((key, default)) = place.split_once('=')
        {
            let value = own.get(key).map_or(default.to_string(), shown);
            text = format!("{before}{value}{after}");
            placed = Some(key);
        }
        for (key, value) in own {
            let is_usual = usual.get(key) == Some(value);
            let flag = self.flags.iter().find(|(name, _)| match name.split_once('=') {
                Some((name, of)) => name == key && of == shown(value),
                None => name == key,
            });
            match flag {
                _ if is_usual || placed == Some(key.as_str()) => {}
                Some((_, flag)) => {
                    let characters = value.as_integer().map_or(0, |tokens| tokens * CHARACTERS_PER_TOKEN);
                    let flag = flag.replace("{characters}", &characters.to_string());
                    text += &flag.replace("{}", &shown(value));
                }
                None => {
                    unsaid.insert(key.clone(), value.clone());
                }
            }
        }
        Written { text, unsaid }
    }
}

/// A parameter's value as flags have it.
fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Float(number) => number.to_string(),
        other => other.to_string(),
    }
}

/// The limits of an index, by their keys in a scenario.
fn limits_set(limits: IndexLimits) -> toml::Table {
    let count = |most: std::num::NonZeroUsize| toml::Value::from(most.get() as i64);
    let set = [
        ("kv_index_blocks", limits.blocks.map(count)),
        ("kv_index_replicas_per_block", limits.replicas_per_block.map(count)),
        ("kv_index_ttl_s", limits.ttl.map(|ttl| ttl.as_s().into())),
    ];
    set.into_iter().filter_map(|(key, value)| Some((format!("router.view.{key}"), value?))).collect()
}

/// The product of this name.
pub fn find(name: &str) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.name == name)
}

impl Product {
    /// Its configuration for the offer of this name, with what a scenario chose.
    pub fn configuration(&self, name: &str, chosen: Chosen<'_>) -> Option<Written> {
        let offer = self.offers.iter().find(|offer| offer.name == name)?;
        let Written { text, unsaid } = offer.written(chosen);
        // Not `format!`: stanzas have braces of their own, and the place is the last pair without anything in it.
        let place = self.frame.rfind("{}")?;
        let text = [&self.frame[..place], &text, &self.frame[place + 2..]].concat();
        Some(Written { text, unsaid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;
    use crate::router::policies;

    /// These parameters, and nothing else out of the ordinary.
    fn plain(parameters: &toml::Table) -> Chosen<'_> {
        Chosen { parameters, kv_index: None, block_size: 16 }
    }

    #[test]
    fn a_composition_with_a_name_is_not_what_a_scenario_composes() {
        let own: toml::Table = "scorers = [{ type = \"queue-scorer\" }]".parse().unwrap();
        let of = |name: &str| {
            let offers = find("llm-d").unwrap().offers;
            offers.iter().find(|offer| offer.name == name).unwrap().parameters(&own).to_string()
        };
        assert!(of("session-affinity").contains("session-affinity-scorer"));
        assert!(of("optimized-baseline-2025").contains("no-hit-lru-scorer"));
        assert_eq!(of("epp-weighted"), own.to_string());
    }

    #[test]
    fn limits_that_a_product_has_no_word_for_are_handed_back() {
        let limits = IndexLimits { blocks: std::num::NonZeroUsize::new(50), ..IndexLimits::default() };
        let own = toml::Table::new();
        let chosen = Chosen { kv_index: Some(limits), ..plain(&own) };
        let Written { unsaid, .. } = find("dynamo").unwrap().configuration("dynamo-kv", chosen).unwrap();
        assert_eq!(unsaid.to_string(), "\"router.view.kv_index_blocks\" = 50\n");
    }

    #[test]
    fn products_offer_policies_that_there_are() {
        for product in PRODUCTS {
            for offer in product.offers {
                let parameters = offer.parameters(&toml::Table::new());
                assert_eq!(parameters.is_empty(), offer.parameters.is_empty(), "{}", offer.parameters);
                let built = policies::build(offer.policy, &parameters, Seed(0), 0);
                assert!(built.is_ok(), "{}: {}", product.name, offer.name);
                let Written { text, unsaid } = product.configuration(offer.name, plain(&parameters)).unwrap();
                assert!(unsaid.is_empty() && !text.contains("{}") && text.ends_with('\n'), "{text}");
                let same = product.offers.iter().filter(|other| other.name == offer.name);
                assert_eq!(same.count(), 1, "{}: {}", product.name, offer.name);
            }
        }
        assert!(PRODUCTS.is_sorted_by_key(|product| product.name));
    }

    #[test]
    fn a_choice_is_written_as_the_product_reads_it() {
        let of = |product: &str, name: &str, own: &str| {
            let own = own.parse().unwrap();
            let written = find(product).unwrap().configuration(name, plain(&own));
            written.map(|written| (written.text, written.unsaid.keys().cloned().collect::<Vec<_>>()))
        };
        let text = |product: &str, name: &str, own: &str| of(product, name, own).unwrap().0;
        assert_eq!(
            text("production-stack", "prefix-trie", "prefix_min_match_tokens = 32"),
            "vllm-router --routing-logic prefixaware --prefix-min-match-length 128\n"
        );
        assert!(text("nginx", "power-of-two", "").contains("random two least_conn;"));
        assert_eq!(of("nginx", "power-of-two", "choices = 3").unwrap().1, ["choices"]);
        assert!(text("haproxy", "power-of-two", "choices = 3").contains("balance random(3)"));
        assert!(text("envoy", "power-of-two", "").contains("choice_count: 2 }"));
        assert!(text("llm-d", "sticky-until-saturated", "").starts_with("apiVersion:"));
        assert!(
            text("sglang", "cache-aware", "cache_threshold = 0.5\nbalance_abs_threshold = 8")
                .ends_with("--policy cache_aware --cache-threshold 0.5 --balance-abs-threshold 8\n")
        );
        assert!(
            text("sglang", "prefix_hash", "prefix_tokens = 64\nload_factor = 1.5")
                .ends_with("--policy prefix_hash --prefix-token-count 64 --prefix-hash-load-factor 1.5\n")
        );
        assert!(text("dynamo", "dynamo-kv", "use_kv_events = false").contains("kv --no-router-kv-events"));
        assert_eq!(of("nginx", "dynamo-kv", ""), None);
    }

    #[test]
    fn pickers_of_one_scorer_are_written_like_any_other() {
        let cases = [
            (
                "random",
                "plugins:\n- type: random-picker\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: random-picker",
            ),
            (
                "least-queue",
                "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n    weight: 1",
            ),
            (
                "least-kv",
                "plugins:\n- type: kv-cache-utilization-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: kv-cache-utilization-scorer\n    weight: 1",
            ),
            (
                "least-request",
                "plugins:\n- type: active-request-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: active-request-scorer\n    weight: 1",
            ),
            (
                "join-idle-queue",
                "plugins:\n- type: active-request-scorer\n  parameters:\n    maxBusyScore: 0\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: active-request-scorer\n    weight: 1",
            ),
            (
                "least-tokens",
                "plugins:\n- type: token-load-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: token-load-scorer\n    weight: 1",
            ),
        ];
        for (name, plugins) in cases {
            let own = "ties = \"first\"".parse().unwrap();
            let llm_d = find("llm-d").unwrap();
            let Written { text, unsaid } = llm_d.configuration(name, plain(&own)).unwrap();
            assert!(text.ends_with(&format!("EndpointPickerConfig\n{plugins}\n")), "{text}");
            // What no plugin has is not taken for set.
            assert_eq!(unsaid, own);
        }
    }
}
