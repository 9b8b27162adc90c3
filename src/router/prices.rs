//! What work costs on a card: the price list behind policies that estimate time, as cost models beside gateways have it.
//!
//! Knows prices of batches. Does not know what is running anywhere.

use std::sync::Arc;

use super::Facts;
use crate::step_time::{Batch, Chunk, Decodes, StepTime};
use crate::time::Span;

/// Time from one step to the next: the GPU's or the host's, whichever is longer. A policy may count more who decode than an
/// engine runs; the others wait, so the price is that of a full batch with the same mean context.
pub fn step(facts: &Facts, chunks: &[Chunk], mut decodes: Decodes) -> Span {
    let most = facts.engine.max_num_seqs.min(facts.engine.max_num_batched_tokens);
    if decodes.count > most {
        decodes.context_sum = decodes.context_sum * u64::from(most) / u64::from(decodes.count);
        decodes.count = most;
    }
    let cost = facts.step_time.cost(&Batch { chunks, decodes });
    match facts.engine.async_scheduling {
        true => cost.gpu.max(cost.host),
        false => cost.gpu + cost.host,
    }
}

/// Prices of prefills, each worked out once: a policy that prices every replica at every decision asks for the same lengths
/// again and again.
#[derive(Clone, Debug, Default)]
pub struct Prefills {
    kinds: Vec<OfKind>,
}

/// Prices on one kind of replica.
#[derive(Clone, Debug)]
struct OfKind {
    step_time: Arc<dyn StepTime>,
    budget: u32,
    asynchronous: bool,
    /// Time of a step by its prompt tokens, up to the budget; [`UNKNOWN`] until somebody asks.
    by_tokens: Vec<Span>,
}

const UNKNOWN: Span = Span::from_ps(u64::MAX);

impl OfKind {
    fn new(facts: &Facts) -> OfKind {
        let budget = facts.engine.max_num_batched_tokens;
        OfKind {
            step_time: facts.step_time.clone(),
            budget,
            asynchronous: facts.engine.async_scheduling,
            by_tokens: vec![UNKNOWN; budget as usize + 1],
        }
    }

    fn is_of(&self, facts: &Facts) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.step_time), Arc::as_ptr(&facts.step_time))
            && (self.budget, self.asynchronous)
                == (facts.engine.max_num_batched_tokens, facts.engine.async_scheduling)
    }
}

impl Prefills {
    /// Time to compute this many prompt tokens in steps of the token budget, none of them after a context.
    pub fn time_of(&mut self, facts: &Facts, tokens: u64) -> Span {
        let known = self.kinds.iter().position(|kind| kind.is_of(facts));
        let place = known.unwrap_or_else(|| {
            self.kinds.push(OfKind::new(facts));
            self.kinds.len() - 1
        });
        let kind = &mut self.kinds[place];
        let mut step_of = |tokens: u32| {
            let price = &mut kind.by_tokens[tokens as usize];
            if *price == UNKNOWN {
                let chunk = Chunk { tokens, before: 0, samples: true };
                *price = step(facts, &[chunk], Decodes::default());
            }
            *price
        };
        let budget = u64::from(kind.budget);
        let (full, rest) = (tokens / budget, (tokens % budget) as u32);
        let mut time = Span::ZERO;
        if full > 0 {
            time += step_of(budget as u32) * full;
        }
        if rest > 0 {
            time += step_of(rest);
        }
        time
    }
}

/// GPU time of a prompt in steps of the token budget, of which the `cached` leading tokens are there; the last token is always
/// computed.
pub fn uncached(facts: &Facts, prompt_tokens: u32, cached: u32) -> Span {
    let mut before = cached.min(prompt_tokens.saturating_sub(1));
    let mut time = Span::ZERO;
    while before < prompt_tokens {
        let tokens = (prompt_tokens - before).min(facts.engine.max_num_batched_tokens);
        let chunk = Chunk { tokens, before, samples: before + tokens == prompt_tokens };
        time += facts.step_time.cost(&Batch { chunks: &[chunk], decodes: Decodes::default() }).gpu;
        before += tokens;
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Glance;
    use crate::router::tests::Scene;

    #[test]
    fn nobody_decodes_beside_a_full_batch() {
        let scene = Scene::of(1);
        let facts = scene.facts(0);
        let most = facts.engine.max_num_seqs;
        let of = |count: u32| Decodes { count, context_sum: u64::from(count) * 1_000, context_max: 0 };
        assert!(step(facts, &[], of(most)) > step(facts, &[], of(most - 1)));
        assert_eq!(step(facts, &[], of(most + 1)), step(facts, &[], of(most)));
        assert_eq!(step(facts, &[], of(3 * most)), step(facts, &[], of(most)));
    }

    /// 5 ms a step, 30 us a token, 25 ns a token of context; 2,048 tokens a step.
    #[test]
    fn a_prompt_longer_than_the_budget_takes_several_steps() {
        let scene = Scene::of(1);
        let price = |prompt, cached| uncached(scene.facts(0), prompt, cached);
        assert_eq!(price(2_048, 0), Span::from_ms(5) + Span::from_us(30) * 2_048 + Span::from_ns(25) * 2_048);
        let context = Span::from_ns(25) * (3_048 + 5_000);
        assert_eq!(price(5_000, 1_000), Span::from_ms(10) + Span::from_us(30) * 4_000 + context);
        assert_eq!(price(1_000, 1_000), price(1_000, 999));
    }
}
