//! A step time from measured times of one layer's parts.
//!
//! ```text
//! gpu = embedding(M) + layers * [ 2 norms(M) + qkv(M) + rotary(M) + attention + o(M) + gate-up(M) + act(M) + down(M) ]
//!     + final norm(M) + head(samples) + sampler(samples)
//! M   = tokens of the step, padded to the next CUDA graph
//! ```
//!
//! Knows measured tables (`folder.rs`), straight lines between their points (`curve.rs`), attention of decodes
//! (`decode.rs`) and of calls with prompts (`blocks.rs`), and experts (`experts.rs`). Does not know the card beyond its
//! multiprocessors and its links: all-reduce between cards is in no layer profile and comes from the catalogue.
//!
//! Everything but attention depends on M and the number of samples alone and is tabulated at binding; decode
//! attention is a broken line with integer slopes. So a run of decode steps is an arithmetic series up to the next
//! corner, exact to the picosecond.

use crate::hardware::defaults::capture_size;
use crate::hardware::{Deployment, Gpu, Model};
use crate::step_time::host::Host;
use crate::step_time::links::Links;
use crate::step_time::routing::{Routing, Visits};
use crate::step_time::{Batch, Decodes, Series, StepCost, StepTime, together};
use crate::time::Span;

mod blocks;
pub(crate) mod curve;
mod decode;
mod experts;
mod folder;
#[cfg(test)]
mod tests;
mod uneven;

use blocks::ThreadBlocks;
use decode::DecodeAttention;
use experts::Experts;
use folder::Operators;
pub use folder::{LayerProfile, ProfileError, ProfileMeta};
use uneven::Uneven;

/// Operators of every layer and how often each runs in it.
const EVERY_LAYER: [(&str, f64); 4] =
    [("layernorm", 2.0), ("qkv_proj", 1.0), ("rotary_emb", 1.0), ("o_proj", 1.0)];
/// Operators that some models have in every layer.
const SOME_MODELS: [&str; 1] = ["qk_norm"];
/// Operators of a dense feed-forward part.
const FEED_FORWARD: [&str; 3] = ["gate_up_proj", "act_fn", "down_proj"];
/// Operators that run once a step.
const ONCE: [&str; 2] = ["embedding", "final_layernorm"];
/// Operators by sequences that sample.
const PER_SEQUENCE: [&str; 2] = ["lm_head", "sampler"];

/// Matrix products rise in steps at edges of tiles, which are multiples of 16 tokens: between two measured points so
/// near, time is that of the later.
const TREAD: f64 = 16.0;

/// The step time of one model on one kind of card, from a layer profile.
#[derive(Clone, Debug)]
pub struct LayerTimes {
    /// GPU picoseconds of a step of so many tokens, attention and head left out; entry 0 is never used.
    by_tokens: Vec<u64>,
    /// GPU picoseconds of experts that engines share, by the tokens of all of them; empty where nobody shares.
    by_shared_tokens: Vec<u64>,
    /// GPU picoseconds of the output head and the sampler, by sequences that sample.
    by_samples: Vec<u64>,
    decode: DecodeAttention,
    blocks: ThreadBlocks,
    layers: f64,
    max_captured: u32,
    host: Host,
    marks: Vec<String>,
}

impl LayerTimes {
    /// Binds a profile to a model and its deployment.
    ///
    /// # Errors
    /// If the profile lacks an operator of the model's layers, or holds one that would be left out.
    pub fn bind(
        profile: &LayerProfile,
        gpu: &Gpu,
        model: &Model,
        deployment: &Deployment,
    ) -> Result<LayerTimes, ProfileError> {
        check(profile, model)?;
        let layers = f64::from(model.layers);
        let max_captured = deployment.max_captured();
        let points = |reason: &str| ProfileError::TooFewPoints {
            file: profile.attention_file.clone(),
            reason: reason.into(),
        };
        let uneven = Uneven::new(profile.uneven(), &profile.attention, !deployment.enforce_eager);
        let decode =
            DecodeAttention::new(&profile.attention, uneven.as_ref(), layers, deployment.max_num_seqs)
                .ok_or_else(|| {
                    points("has no row of decodes alone (prefill_chunk 0, n_decode and kv_decode above 0)")
                })?;
        let heads = model.heads / deployment.tensor_parallel_size;
        let blocks = ThreadBlocks::fit(&profile.attention, heads, gpu.sm_count).ok_or_else(|| {
            points("has too few rows with a prefill chunk to fit attention: ten is the least")
        })?;
        let experts = experts(profile, model, deployment)?;
        let links = Links::new(gpu, model, deployment);
        let visits = Visits::new(model.experts, model.top_k, Routing::Trained);
        let routed_us = |tokens: f64| {
            let visited = visits.visited(tokens);
            let layer = experts
                .as_ref()
                .map_or(0.0, |experts| experts.us(tokens, visited) + links.experts_us(tokens));
            f64::from(model.moe_layers) * layer
        };
        let shared = experts.is_some() && deployment.data_parallel_size > 1;
        let step_us = |tokens: u32| {
            let padded = f64::from(capture_size(tokens, max_captured).unwrap_or(tokens));
            let operator = |name: &str| {
                profile.dense.curves.get(name).map_or(0.0, |curve| curve.stair_at(padded, TREAD))
            };
            let mut layer: f64 = EVERY_LAYER.iter().map(|(name, times)| times * operator(name)).sum();
            layer += SOME_MODELS.iter().map(|name| operator(name)).sum::<f64>();
            layer += 2.0 * links.all_reduce_us(padded);
            let dense: f64 = FEED_FORWARD.iter().map(|name| operator(name)).sum();
            let routed = if shared { 0.0 } else { routed_us(padded) };
            let once: f64 = ONCE.iter().map(|name| operator(name)).sum();
            once + links.all_reduce_us(padded)
                + layers * layer
                + f64::from(model.dense_layers()) * dense
                + routed
        };
        let head_us = |samples: u32| match samples {
            0 => 0.0,
            samples => {
                let samples = f64::from(samples);
                let curves = PER_SEQUENCE.iter().filter_map(|name| profile.per_sequence.curves.get(*name));
                links.logits_us(samples) + curves.map(|curve| curve.at(samples)).sum::<f64>()
            }
        };
        let most = deployment.max_num_batched_tokens * deployment.data_parallel_size;
        let by_shared_tokens =
            (0..=most).filter(|_| shared).map(|tokens| picoseconds(routed_us(f64::from(tokens)))).collect();
        let marks = marks(profile, deployment, &decode, experts.as_ref());
        Ok(LayerTimes {
            by_tokens: (0..=deployment.max_num_batched_tokens)
                .map(|tokens| picoseconds(step_us(tokens)))
                .collect(),
            by_shared_tokens,
            by_samples: (0..=deployment.max_num_seqs).map(|samples| picoseconds(head_us(samples))).collect(),
            decode,
            blocks,
            layers,
            max_captured,
            host: Host::new(1.0),
            marks,
        })
    }

    /// Where this deployment leaves what was measured; empty if it does not.
    pub fn marks(&self) -> &[String] {
        &self.marks
    }

    /// GPU picoseconds of experts that engines share, for the rows of all of them; nothing where nobody shares.
    fn shared_ps(&self, rows: u64) -> u64 {
        self.by_shared_tokens.get(rows as usize).copied().unwrap_or(0)
    }

    fn attention_ps(&self, batch: &Batch<'_>) -> u64 {
        if batch.chunks.iter().all(|chunk| chunk.tokens == 0) {
            self.decode.cost_ps(batch.decodes)
        } else {
            picoseconds(self.layers * self.blocks.us(batch))
        }
    }

    fn dense_ps(&self, tokens: u64, samples: u64) -> u64 {
        let by_tokens = self.by_tokens.get(tokens as usize);
        let by_samples = self.by_samples.get(samples as usize);
        by_tokens.expect("a step has at most max_num_batched_tokens tokens")
            + by_samples.expect("a step has at most max_num_seqs sequences")
    }
}

impl StepTime for LayerTimes {
    /// # Panics
    /// If the batch has more tokens than `max_num_batched_tokens`, or samples for more than `max_num_seqs`.
    fn cost(&self, batch: &Batch<'_>) -> StepCost {
        let tokens = batch.tokens();
        if tokens == 0 {
            return StepCost::default();
        }
        let gpu_ps =
            self.dense_ps(tokens, batch.samples()) + self.attention_ps(batch) + self.shared_ps(tokens);
        StepCost { gpu: Span::from_ps(gpu_ps), host: self.host.span(batch.sequences()) }
    }

    fn together(&self, batches: &[Batch<'_>]) -> Span {
        let tokens: Vec<u64> = batches.iter().map(Batch::tokens).collect();
        let rows = together::rows(&tokens, self.max_captured);
        let own = batches
            .iter()
            .zip(&rows)
            .map(|(batch, rows)| self.dense_ps(*rows, batch.samples()) + self.attention_ps(batch));
        Span::from_ps(own.max().unwrap_or(0) + self.shared_ps(rows.iter().sum()))
    }

    fn run(&self, decodes: Decodes, steps: u64) -> Series {
        let steps = steps.max(1);
        let first = self.cost(&Batch { chunks: &[], decodes });
        if decodes.count == 0 {
            return Series { first, growth: Span::ZERO, count: steps };
        }
        let (growth_ps, count) = self.decode.growth_ps(decodes);
        Series { first, growth: Span::from_ps(growth_ps), count: count.min(steps) }
    }
}

fn experts(
    profile: &LayerProfile,
    model: &Model,
    deployment: &Deployment,
) -> Result<Option<Experts>, ProfileError> {
    if model.moe_layers == 0 {
        return Ok(None);
    }
    let (slices, cards) = (deployment.expert_slices(), deployment.expert_parallel_size());
    let found = Experts::new(|slices| Some(profile.experts(slices)?.rows.as_slice()), slices, cards);
    found.map(Some).ok_or_else(|| ProfileError::NoExperts {
        folder: profile.folder.clone(),
        model: model.name.clone(),
        slices,
        cards,
        present: profile.experts_measured(),
    })
}

/// Whether the profile has the parts of this model's layers, and no others.
fn check(profile: &LayerProfile, model: &Model) -> Result<(), ProfileError> {
    let every = EVERY_LAYER.iter().map(|(name, _)| *name).chain(ONCE);
    let feed_forward = FEED_FORWARD.into_iter().filter(|_| model.dense_layers() > 0);
    require(&profile.dense, &every.chain(feed_forward).collect::<Vec<_>>(), model)?;
    require(&profile.per_sequence, &PER_SEQUENCE, model)?;
    let every = EVERY_LAYER.iter().map(|(name, _)| *name);
    let known: Vec<&str> = every.chain(ONCE).chain(FEED_FORWARD).chain(SOME_MODELS).collect();
    understand(&profile.dense, &known, model)?;
    understand(&profile.per_sequence, &PER_SEQUENCE, model)
}

fn require(operators: &Operators, names: &[&str], model: &Model) -> Result<(), ProfileError> {
    let missing: Vec<&str> =
        names.iter().filter(|name| !operators.curves.contains_key(**name)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ProfileError::MissingOperators {
        file: operators.file.clone(),
        missing: missing.join(", "),
        model: model.name.clone(),
        present: operators.curves.keys().cloned().collect::<Vec<_>>().join(", "),
    })
}

fn understand(operators: &Operators, names: &[&str], model: &Model) -> Result<(), ProfileError> {
    let unknown: Vec<&str> =
        operators.curves.keys().map(String::as_str).filter(|name| !names.contains(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(ProfileError::UnknownOperators {
        file: operators.file.clone(),
        unknown: unknown.join(", "),
        model: model.name.clone(),
        known: names.join(", "),
    })
}

fn marks(
    profile: &LayerProfile,
    deployment: &Deployment,
    decode: &DecodeAttention,
    experts: Option<&Experts>,
) -> Vec<String> {
    let mut marks = Vec::new();
    let mut beyond = |key: &str, asked: u32, measured: f64, of: &str| {
        if f64::from(asked) > measured {
            marks.push(format!(
                "{key} = {asked}: {of} was profiled up to {measured}, times beyond go on along the last two points"
            ));
        }
    };
    let end = |operators: &Operators| {
        operators.curves.values().map(super::profile::curve::Curve::end).fold(f64::INFINITY, f64::min)
    };
    beyond("max_num_batched_tokens", deployment.max_num_batched_tokens, end(&profile.dense), "a layer");
    if let Some(experts) = experts {
        beyond(
            "max_num_batched_tokens",
            deployment.max_num_batched_tokens,
            experts.end(),
            "a layer's experts",
        );
    }
    let samples = end(&profile.per_sequence).min(decode.most_sequences());
    beyond("max_num_seqs", deployment.max_num_seqs, samples, "a step's sampling and decode attention");
    beyond("max_model_len", deployment.max_model_len, decode.longest_context(), "decode attention");
    if !profile.holds_uneven() {
        marks.push("uneven contexts are not in the profile: decodes are priced by their mean context".into());
    }
    if deployment.tensor_parallel_size > 1 {
        marks.push("all-reduce between cards is in no layer profile: taken from the catalogue".into());
    }
    if deployment.data_parallel_size > 1 && experts.is_some() {
        marks.push(
            "the way to other engines' experts and back is in no layer profile: NCCL's from the catalogue"
                .into(),
        );
    }
    if experts.is_some_and(Experts::stands_in) {
        marks.push(
            "experts were profiled on a card with all of them, which stands for a card with its share".into(),
        );
    }
    if experts.is_some() {
        marks.push("gates are taken to have favourites as that of Qwen3-30B-A3B has".into());
    }
    marks
}

/// Integer picoseconds of a length of time in microseconds.
fn picoseconds(us: f64) -> u64 {
    Span::from_us_f64(us).as_ps()
}
