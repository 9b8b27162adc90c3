//! The list of policies by name: the only place that knows them all.

use thiserror::Error;

use super::{Freshness, Router};
use super::{
    cache_aware, drain_time, dynamo_kv, epp_precise, epp_weighted, estimated_ttft, expected_wait,
    free_blocks_per_request, hit_minus_load, join_idle_queue, latency_average, least_kv, least_queue,
    least_request, least_tokens, lmetric, oracle_min_latency, orca_weighted, peak_ewma, power_of_two,
    preble_e2, predicted_completion, predicted_latency, prefix_hash_bounded, prefix_sigma, prefix_tiered,
    prefix_trie, prefix_two_choice, prequal, random, round_robin, script, session_hash, session_sticky,
    simulate_ahead, sticky_until_saturated, vllm_dp, weighted_round_robin,
};
use crate::random::Seed;

/// Builds the policy of gateway number `gateway` from `[router.parameters]`.
pub type Build = fn(&toml::Table, Seed, u64) -> Result<Box<dyn Router>, toml::de::Error>;

/// A policy as `tailcast list policies` shows it.
#[derive(Clone, Copy, Debug)]
pub struct PolicyInfo {
    /// Its name in scenarios.
    pub name: &'static str,
    /// What kind of policy it is.
    pub family: &'static str,
    /// What it reads.
    pub reads: &'static str,
    /// The products that have it, by their names.
    pub upstream: &'static str,
    /// How old the gauges are that it reads, unless the scenario says; none if it reads no gauges.
    pub default_freshness: Option<Freshness>,
    /// Makes one.
    pub build: Build,
}

/// All policies, by family.
pub const POLICIES: &[PolicyInfo] = &[
    random::INFO,
    round_robin::INFO,
    weighted_round_robin::INFO,
    least_request::INFO,
    power_of_two::INFO,
    join_idle_queue::INFO,
    least_tokens::INFO,
    drain_time::INFO,
    vllm_dp::INFO,
    least_queue::INFO,
    least_kv::INFO,
    free_blocks_per_request::INFO,
    expected_wait::INFO,
    prequal::INFO,
    orca_weighted::INFO,
    peak_ewma::INFO,
    latency_average::INFO,
    session_hash::INFO,
    session_sticky::INFO,
    prefix_hash_bounded::INFO,
    prefix_two_choice::INFO,
    cache_aware::INFO,
    prefix_trie::INFO,
    prefix_tiered::INFO,
    prefix_sigma::INFO,
    epp_weighted::INFO,
    epp_precise::INFO,
    sticky_until_saturated::INFO,
    dynamo_kv::INFO,
    hit_minus_load::INFO,
    lmetric::INFO,
    preble_e2::INFO,
    predicted_latency::INFO,
    estimated_ttft::INFO,
    predicted_completion::INFO,
    simulate_ahead::INFO,
    oracle_min_latency::INFO,
];

/// Policies that are nothing without parameters: they can be named, and do not belong to "all".
pub const OWN: &[PolicyInfo] = &[script::INFO];

/// What a comparison sets side by side unless it is told otherwise: one of each kind that any gateway has.
pub const COMPARED: [&str; 6] =
    ["random", "round-robin", "least-request", "power-of-two", "least-kv", "predicted-completion"];

/// Why there is no such policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// No policy has this name.
    #[error("unknown policy `{name}`")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// Its parameters are wrong.
    #[error("policy `{name}`: {reason}")]
    Parameters {
        /// The policy.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// The policy of this name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<&'static PolicyInfo, PolicyError> {
    POLICIES
        .iter()
        .chain(OWN)
        .find(|info| info.name == name)
        .ok_or_else(|| PolicyError::Unknown { name: name.to_string() })
}

/// Makes the policy `name` for one gateway.
///
/// # Errors
/// If there is no such policy, or it has no such parameters.
pub fn build(
    name: &str,
    parameters: &toml::Table,
    seed: Seed,
    gateway: u64,
) -> Result<Box<dyn Router>, PolicyError> {
    let info = find(name)?;
    (info.build)(parameters, seed, gateway).map_err(|error| PolicyError::Parameters {
        name: name.to_string(),
        reason: error.message().to_string(),
    })
}
