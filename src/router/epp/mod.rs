//! The endpoint picker of llm-d and the Gateway API Inference Extension: filters, weighted scorers and a picker.
//!
//! Per request: producers tell what is cached where, filters leave endpoints out one after the other, every scorer gives each
//! endpoint 0 to 1, the weighted sum decides, and a picker tells equals apart. Counters and the belief in prefixes change
//! when the decision takes effect (PreRequest), so requests in between see the same scores.
//!
//! - [`scorers`]: what makes an endpoint good; `context_length`: one that reads labels
//! - [`filters`]: who is not asked
//! - [`pickers`]: who is taken

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::approximate_prefix::{ApproximatePrefix, Parameters as Approximate};
use super::in_flight_tokens::InFlightTokens;
use super::scripting::Script;
use super::{Decision, Feedback, Freshness, Glance, Router, Server, Sight};
use crate::random::Seed;
use crate::request::Arrival;
use crate::time::{Span, Time};

mod context_length;
pub mod filters;
pub mod latency;
pub mod pickers;
pub mod scorers;

use filters::FilterPlugin;
use latency::{Headroom, LatencyProducer, Predictor};
use pickers::{Picker, PickerPlugin};
use scorers::{ColdRoutes, Known, ScorerPlugin};

/// How old scraped gauges are: `--refresh-metrics-interval`.
pub const FRESHNESS: Freshness = Freshness::Polled { interval: Span::from_ms(50) };

/// Replicas that the precise producer's index knows of one block unless it is told otherwise: `podCacheSize` of llm-d's
/// `kvblock/in_memory.go`.
pub const POD_CACHE_SIZE: usize = 10;

/// Where an endpoint's cached prefix is known from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PrefixProducer {
    /// `approx-prefix-cache-producer`: the picker's own decisions.
    ApproxPrefixCacheProducer {
        /// How they are kept.
        #[serde(default)]
        parameters: Approximate,
    },
    /// `precise-prefix-cache-producer`: KV events of the engines, as late as the view says.
    PrecisePrefixCacheProducer {
        /// Whether a decision counts as cached until events confirm it: seconds it is believed; 0 is off.
        #[serde(default)]
        speculative_ttl_s: f64,
    },
}

/// A picker's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Where prefixes are known from.
    pub prefix: PrefixProducer,
    /// `predicted-latency-producer`, where a filter or a scorer asks for predictions.
    pub latency: LatencyProducer,
    /// Who is not asked, in this order.
    pub filters: Vec<FilterPlugin>,
    /// What makes an endpoint good.
    pub scorers: Vec<ScorerPlugin>,
    /// Who is taken.
    pub picker: PickerPlugin,
}

impl Default for Parameters {
    /// What the picker does when no configuration is given.
    fn default() -> Self {
        let approximate = Approximate::default();
        Parameters {
            prefix: PrefixProducer::ApproxPrefixCacheProducer { parameters: approximate },
            latency: LatencyProducer::default(),
            filters: Vec::new(),
            scorers: vec![
                ScorerPlugin::QueueScorer { weight: 2.0 },
                ScorerPlugin::KvCacheUtilizationScorer { weight: 2.0 },
                ScorerPlugin::PrefixCacheScorer { weight: 3.0, absolute_weight: 0.0 },
            ],
            picker: PickerPlugin::MaxScorePicker,
        }
    }
}

/// Makes the picker of gateway `gateway` from `[router.parameters]`, which replace `Parameters` key by key.
///
/// # Errors
/// If a key is unknown or a value cannot be.
pub fn build(
    parameters: &toml::Table,
    defaults: Parameters,
    seed: Seed,
    gateway: u64,
) -> Result<Box<dyn Router>, toml::de::Error> {
    let mut merged = toml::Table::try_from(&defaults).map_err(toml::de::Error::custom)?;
    merged.extend(parameters.clone());
    made(merged.try_into()?, seed, gateway)
}

/// The picker that has these parameters.
///
/// # Errors
/// If a value cannot be.
pub fn made(parameters: Parameters, seed: Seed, gateway: u64) -> Result<Box<dyn Router>, toml::de::Error> {
    let problem = match &parameters.prefix {
        PrefixProducer::ApproxPrefixCacheProducer { parameters } => parameters.problem(),
        PrefixProducer::PrecisePrefixCacheProducer { speculative_ttl_s } => {
            let known = (0.0..=3_600.0).contains(speculative_ttl_s);
            (!known).then_some("`speculative_ttl_s` must be 0 to 3600 seconds")
        }
    };
    let problems = parameters.scorers.iter().map(ScorerPlugin::problem);
    let problems = problems.chain(parameters.filters.iter().map(FilterPlugin::problem));
    let problems = problems.chain([problem, parameters.latency.problem()]);
    if let Some(problem) = problems.flatten().next() {
        return Err(toml::de::Error::custom(problem));
    }
    let weights: f64 = parameters.scorers.iter().map(ScorerPlugin::weight).sum();
    if !weights.is_finite() {
        return Err(toml::de::Error::custom("the weights of all scorers sum to more than a number can hold"));
    }
    if weights == 0.0 && !parameters.scorers.is_empty() {
        return Err(toml::de::Error::custom("the weights of all scorers are 0, so nothing would be weighed"));
    }
    if parameters.scorers.is_empty() && parameters.picker != PickerPlugin::RandomPicker {
        return Err(toml::de::Error::custom(
            "without a scorer all endpoints are alike: name one, or set `picker` to \"random-picker\"",
        ));
    }
    let scripts = parameters.scorers.iter().map(|scorer| compiled(scorer, seed, gateway));
    let scripts = scripts.collect::<Result<_, _>>().map_err(toml::de::Error::custom)?;
    Ok(Box::new(EndpointPicker::new(parameters, scripts, seed, gateway)))
}

/// The script of a scorer that is one.
fn compiled(scorer: &ScorerPlugin, seed: Seed, gateway: u64) -> Result<Option<Script>, String> {
    let ScorerPlugin::ScriptScorer { file, source, constants, .. } = scorer else { return Ok(None) };
    if source.is_empty() {
        return Err("a script-scorer needs its text: file = \"my-scorer.rhai\"".into());
    }
    let file = if file.is_empty() { "a script-scorer" } else { file };
    let script = Script::compile(file, source, constants, seed, gateway)?;
    match script.has("score", 2) {
        true => Ok(Some(script)),
        false => Err(format!("{file}: expected fn score(request, replica)")),
    }
}

/// What is known of an endpoint while a request is scored.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Which replica.
    pub server: Server,
    /// `vllm:num_requests_waiting`, as it was scraped.
    pub waiting: u32,
    /// `vllm:num_requests_running`, as it was scraped.
    pub running: u32,
    /// `vllm:kv_cache_usage_perc`, as it was scraped, 0 to 1.
    pub kv_cache_usage: f64,
    /// Requests this picker has in flight there.
    pub in_flight: u32,
    /// Uncached prompt tokens this picker has in flight there.
    pub in_flight_tokens: u64,
    /// Prompt tokens cached there, as the producer has it.
    pub cached_tokens: u32,
    /// Prompt tokens in whole blocks of the producer's size, which could be.
    pub matchable_tokens: u32,
    /// Cached tokens over all of the prompt.
    pub prompt_share: f64,
    /// Objectives less what is predicted, once anything is.
    pub headroom: Option<Headroom>,
}

impl Endpoint {
    /// Cached blocks over all whole blocks of the prompt; 0 for a prompt without one.
    pub fn cached_share(&self) -> f64 {
        if self.matchable_tokens == 0 {
            return 0.0;
        }
        f64::from(self.cached_tokens) / f64::from(self.matchable_tokens)
    }
}

/// Filters, scorers and a picker with what they remember.
#[derive(Debug)]
pub struct EndpointPicker {
    parameters: Parameters,
    prefix: Producer,
    predictor: Option<Predictor>,
    in_flight: InFlightTokens,
    cold_routes: ColdRoutes,
    sessions: scorers::SessionServers,
    exploration: filters::Exploration,
    picker: Picker,
    /// Of each scorer that is one.
    scripts: Vec<Option<Script>>,
    failure: Option<String>,
    /// Of the decision under way: tokens cached by replica, who is asked, and how good each is by one scorer and in all.
    cached: Vec<u32>,
    endpoints: Vec<Endpoint>,
    own: Vec<f64>,
    scores: Vec<f64>,
}

#[derive(Clone, Debug)]
enum Producer {
    Approximate(ApproximatePrefix),
    Precise { speculation: Option<super::belief::Belief> },
}

impl EndpointPicker {
    fn new(parameters: Parameters, scripts: Vec<Option<Script>>, seed: Seed, gateway: u64) -> EndpointPicker {
        let prefix = match &parameters.prefix {
            PrefixProducer::ApproxPrefixCacheProducer { parameters } => {
                Producer::Approximate(ApproximatePrefix::new(parameters))
            }
            PrefixProducer::PrecisePrefixCacheProducer { speculative_ttl_s } => {
                let keeping = super::belief::Keeping {
                    block_tokens: 16,
                    most_blocks: None,
                    ttl: Some(Span::from_s_f64(*speculative_ttl_s)),
                    most_matched: u32::MAX,
                };
                let speculation = (*speculative_ttl_s > 0.0).then(|| super::belief::Belief::new(keeping));
                Producer::Precise { speculation }
            }
        };
        let predicts = parameters.scorers.iter().any(ScorerPlugin::reads_predictions)
            || parameters.filters.iter().any(FilterPlugin::reads_predictions);
        EndpointPicker {
            prefix,
            predictor: predicts.then(|| Predictor::new(&parameters.latency, seed, gateway)),
            in_flight: InFlightTokens::default(),
            cold_routes: ColdRoutes::default(),
            sessions: scorers::SessionServers::default(),
            exploration: filters::Exploration::new(seed, gateway),
            picker: Picker::new(&parameters.picker, seed, gateway),
            parameters,
            scripts,
            failure: None,
            cached: Vec::new(),
            endpoints: Vec::new(),
            own: Vec::new(),
            scores: Vec::new(),
        }
    }

    fn reads_gauges(&self) -> bool {
        self.predictor.is_some()
            || self.parameters.scorers.iter().any(ScorerPlugin::reads_gauges)
            || self.parameters.filters.iter().any(FilterPlugin::reads_gauges)
    }

    fn reads_prefixes(&self) -> bool {
        self.predictor.is_some()
            || self.parameters.scorers.iter().any(ScorerPlugin::reads_prefixes)
            || self.parameters.filters.iter().any(FilterPlugin::reads_prefixes)
    }

    /// What is known of each endpoint, into `self.endpoints`.
    fn look(&mut self, arrival: &Arrival, glance: &mut dyn Glance) {
        let (servers, now) = (glance.servers(), glance.now());
        let among = glance.candidates();
        let (gauges, prefixes) = (self.reads_gauges(), self.reads_prefixes());
        let cached = &mut self.cached;
        cached.clear();
        match &mut self.prefix {
            _ if !prefixes => cached.resize(servers, 0),
            Producer::Approximate(prefix) => cached.extend(prefix.cached_tokens(arrival, servers, now)),
            Producer::Precise { speculation } => {
                cached.extend((0..servers).map(|server| glance.cached_tokens(server, arrival)));
                if let Some(belief) = speculation {
                    let size = belief.block_tokens();
                    let believed = belief.matched(arrival, servers, now, false);
                    for (cached, blocks) in cached.iter_mut().zip(believed) {
                        *cached = (*cached).max(*blocks * size);
                    }
                }
            }
        }
        let own_block = match &self.prefix {
            Producer::Approximate(prefix) => Some(prefix.block_tokens()),
            Producer::Precise { .. } => None,
        };
        self.endpoints.clear();
        for server in among.iter() {
            let block = own_block.unwrap_or(glance.facts(server).engine.block_size);
            let signals = if gauges { glance.signals(server).signals } else { Default::default() };
            let cached_tokens = cached[server].min(arrival.prompt_tokens);
            self.endpoints.push(Endpoint {
                server,
                waiting: signals.waiting,
                running: signals.running,
                kv_cache_usage: signals.kv_cache_usage(),
                in_flight: glance.mine(server).in_flight,
                in_flight_tokens: self.in_flight.at(server),
                cached_tokens,
                matchable_tokens: arrival.prompt_tokens / block * block,
                prompt_share: f64::from(cached_tokens) / f64::from(arrival.prompt_tokens.max(1)),
                headroom: None,
            });
        }
        if let Some(predictor) = &mut self.predictor {
            predictor.look(arrival, now, &mut self.endpoints);
        }
    }
}

impl Router for EndpointPicker {
    fn sight(&self) -> Sight {
        let precise = matches!(self.prefix, Producer::Precise { .. });
        Sight {
            responses: true,
            first_tokens: true,
            signals: self.reads_gauges() || self.scripts.iter().flatten().any(|script| script.reads_gauges),
            kv_events: precise && self.reads_prefixes()
                || self.scripts.iter().flatten().any(|script| script.reads_cached_tokens),
            ..Sight::default()
        }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        if self.failure.is_some() {
            return Decision::Reject;
        }
        let now = glance.now();
        self.look(arrival, glance);
        let session = self.sessions.of(arrival, now);
        let EndpointPicker { endpoints, scores, own, .. } = self;
        for filter in &self.parameters.filters {
            filter.keep(endpoints, &mut self.exploration, session, glance);
            if endpoints.is_empty() {
                // An empty result of a filter is answered 503.
                return Decision::Reject;
            }
        }
        for scorer in &self.parameters.scorers {
            scorer.leave_out(arrival, endpoints, glance);
        }
        if endpoints.is_empty() {
            return Decision::Reject;
        }
        scores.clear();
        scores.resize(endpoints.len(), 0.0);
        for (scorer, script) in self.parameters.scorers.iter().zip(&mut self.scripts) {
            let known = Known { cold_routes: &self.cold_routes, sessions: &self.sessions, now, glance };
            scorer.score(arrival, endpoints, &known, own);
            if let Some(script) = script {
                for (score, endpoint) in own.iter_mut().zip(&*endpoints) {
                    let replica = script.replica(endpoint.server, arrival, glance);
                    let answer = script.score(arrival, now, replica).and_then(|answer| {
                        let (file, good) = (script.place("score"), (0.0..=1.0).contains(&answer));
                        good.then_some(answer).ok_or_else(|| {
                            format!("{file}: `score` answered {answer}, and a scorer's answer is 0 to 1")
                        })
                    });
                    match answer {
                        Ok(answer) => *score = answer,
                        Err(failure) => {
                            self.failure = Some(failure);
                            return Decision::Reject;
                        }
                    }
                }
            }
            for (sum, score) in scores.iter_mut().zip(&*own) {
                *sum += scorer.weight() * score.clamp(0.0, 1.0);
            }
        }
        let server = endpoints[self.picker.pick(scores)].server;
        if let Some(predictor) = &mut self.predictor {
            predictor.chosen(arrival.id, server);
        }
        Decision::Send(server)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        if self.reads_prefixes() {
            let cached = match &mut self.prefix {
                Producer::Approximate(prefix) => {
                    let all = prefix.cached_tokens(arrival, server + 1, at);
                    let (cached, anywhere) = (all[server], all.iter().any(|cached| *cached > 0));
                    prefix.sent(arrival, server, at);
                    self.cold_routes.routed(server, !anywhere);
                    cached
                }
                Producer::Precise { speculation } => {
                    if let Some(belief) = speculation {
                        belief.sent(arrival, server + 1, server, at);
                    }
                    0
                }
            };
            let uncached = arrival.prompt_tokens.saturating_sub(cached);
            self.in_flight.charge(arrival.id, server, u64::from(uncached));
        } else {
            self.in_flight.charge(arrival.id, server, u64::from(arrival.prompt_tokens));
        }
        self.sessions.routed(arrival, server, at);
        if let Some(predictor) = &mut self.predictor {
            predictor.committed(arrival, server, at);
        }
    }

    fn heard(&mut self, feedback: &Feedback) {
        self.in_flight.release(feedback.id());
        if let Some(predictor) = &mut self.predictor {
            predictor.heard(feedback);
        }
    }

    fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}
