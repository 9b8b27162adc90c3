//! What cards that work together pass to each other.
//!
//! Cards that share a layer add up their parts of its output (all-reduce), and their parts of the logits are put
//! together (all-gather). Engines that share experts hand all their tokens to all of them and get sums back
//! (all-gather, reduce-scatter: vLLM's default `allgather_reducescatter`).

use crate::hardware::coefficients::{self, AllReduce, Gather};
use crate::hardware::{Deployment, Gpu, Model};

/// Stands for the links of cards that resemble none that was measured.
pub(super) const OTHER_LINKS: &str = "l40s";
/// All-reduce in a real step over all-reduce measured alone: in a server it also waits for the slowest card. Fitted on
/// Llama-70B fp8 on H100 (InferenceX).
const ALL_REDUCE_MULTIPLIER: f64 = 1.18;
/// Bytes of an activation.
const ACTIVATION_BYTES: f64 = 2.0;

/// The links of one server's cards, and the sizes of what goes over them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    all_reduce: Option<&'static AllReduce>,
    logits: Option<&'static Gather>,
    experts: Option<&'static Gather>,
    hidden: f64,
    vocab: f64,
    multiplier: f64,
}

impl Links {
    pub(super) fn new(gpu: &Gpu, model: &Model, deployment: &Deployment) -> Links {
        let measured = gpu.allreduce_coefficients.as_deref().unwrap_or(OTHER_LINKS);
        // Counts between those that were measured take the next.
        let together = |cards: u32| Some(cards.next_power_of_two()).filter(|cards| *cards > 1);
        let among = together(deployment.tensor_parallel_size);
        let engines = deployment.data_parallel_size > 1 && model.moe_layers > 0;
        let expert_cards = together(deployment.expert_cards()).filter(|_| engines);
        Links {
            all_reduce: among.and_then(|cards| coefficients::all_reduce(measured, cards)),
            logits: among.and_then(|cards| coefficients::gather(measured, cards)),
            experts: expert_cards.and_then(|cards| coefficients::gather(measured, cards.min(8))),
            hidden: f64::from(model.hidden),
            vocab: f64::from(model.vocab),
            multiplier: 1.0,
        }
    }

    /// The same, everything taking this many times as long.
    pub(super) fn scaled(self, multiplier: f64) -> Links {
        Links { multiplier, ..self }
    }

    /// One all-reduce of the residual stream of so many tokens, in microseconds; nothing where a card works alone.
    pub(super) fn all_reduce_us(&self, tokens: f64) -> f64 {
        let Some(row) = self.all_reduce else { return 0.0 };
        let bytes = tokens * self.hidden * ACTIVATION_BYTES;
        let small = line_us(row.small_us, row.small_gb_per_s, bytes);
        let large = line_us(row.large_us, row.large_gb_per_s, bytes);
        self.multiplier * ALL_REDUCE_MULTIPLIER * small.min(large)
    }

    /// Putting the logits of so many sequences together, in microseconds.
    pub(super) fn logits_us(&self, samples: f64) -> f64 {
        let bytes = samples * self.vocab * ACTIVATION_BYTES;
        self.logits
            .map_or(0.0, |row| self.multiplier * line_us(row.all_gather_us, row.all_gather_gb_per_s, bytes))
    }

    /// The way of so many tokens of all engines to the experts of one layer and back, in microseconds.
    pub(super) fn experts_us(&self, tokens: f64) -> f64 {
        let bytes = tokens * self.hidden * ACTIVATION_BYTES;
        self.experts.map_or(0.0, |row| {
            let there = line_us(row.all_gather_us, row.all_gather_gb_per_s, bytes);
            let back = line_us(row.reduce_scatter_us, row.reduce_scatter_gb_per_s, bytes);
            self.multiplier * (there + back)
        })
    }
}

fn line_us(start_us: f64, gb_per_s: f64, bytes: f64) -> f64 {
    start_us + bytes / (gb_per_s * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{gpu, model};

    fn links(tensor_parallel_size: u32, data_parallel_size: u32) -> Links {
        let (card, shape) = (gpu("h200-sxm").unwrap(), model("qwen3-30b-a3b").unwrap());
        let deployment =
            Deployment { tensor_parallel_size, data_parallel_size, ..Deployment::defaults(card, shape) };
        Links::new(card, shape, &deployment)
    }

    #[test]
    fn a_card_alone_waits_for_nobody() {
        let alone = links(1, 1);
        assert_eq!([alone.all_reduce_us(64.0), alone.logits_us(64.0), alone.experts_us(64.0)], [0.0; 3]);
        let two = links(2, 1);
        assert!(two.all_reduce_us(64.0) > 0.0 && two.logits_us(64.0) > 0.0);
        assert_eq!(two.experts_us(64.0), 0.0, "experts cut or shared within one engine use its all-reduce");
        let engines = links(1, 2);
        assert_eq!([engines.all_reduce_us(64.0), engines.logits_us(64.0)], [0.0; 2]);
        // 2,048 wide, two bytes, over 448 and 424 GB/s.
        let expected = 6.01 + 5.74 + 64.0 * 4096.0 * (1.0 / 448.0e3 + 1.0 / 424.3e3);
        assert!((engines.experts_us(64.0) - expected).abs() < 1e-9);
    }
}
