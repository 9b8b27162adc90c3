//! How long a vLLM process takes from its start until it answers.
//!
//! Knows three parts: the process itself, its weights, and what is compiled and captured for each layer. A rule of
//! thumb from start-up logs, not a model: disks and caches differ by more than it does, so scenarios may say
//! `start_up_s`. Logs: Llama-3-8B with torch.compile 39 s from engine to ready, of these compiling 19 s and graphs
//! 15 s (vLLM pull request 11005); Llama-70B fp8 on eight cards 15 s for bytecode, 70 s compiling, 60 s graphs,
//! 10 s weights from the page cache (issue 19824); 25 to 30 s outside of what the engine logs (issue 20264).

use super::{Deployment, Model};
use crate::time::Span;

/// Interpreter, imports, CUDA, the server: what no part of the model adds to.
const PROCESS: Span = Span::from_s(25);
/// Bytes of weights read a second by each card's worker: a local disk, not a network and not the page cache.
const WEIGHT_BYTES_PER_S: f64 = 2e9;
/// Compiling and capturing, of each layer.
const COMPILED_LAYER: Span = Span::from_ms(1_500);

/// The start-up of one replica.
pub fn start_up(model: &Model, deployment: &Deployment) -> Span {
    let cards = deployment.tensor_parallel_size;
    let bytes = model.weight_bytes(cards, deployment.expert_cards(), deployment.weight_dtype);
    let compiled = match deployment.enforce_eager {
        true => Span::ZERO,
        false => COMPILED_LAYER * u64::from(model.layers),
    };
    PROCESS + Span::from_s_f64(bytes as f64 / WEIGHT_BYTES_PER_S) + compiled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{gpu, model};

    /// 25 s, 16.1 GB at 2 GB/s, and 32 layers of 1.5 s: beside them, logs of 8 B models say 39 s of engine and 25 to 30 s around it.
    #[test]
    fn a_model_of_eight_billion_takes_a_minute_and_a_third() {
        let (card, shape) = (gpu("h100-sxm").unwrap(), model("llama-3.1-8b").unwrap());
        let compiled = Deployment::defaults(card, shape);
        let eager = Deployment { enforce_eager: true, ..compiled.clone() };
        assert!((80.0..82.0).contains(&start_up(shape, &compiled).as_s()));
        assert_eq!(start_up(shape, &compiled) - start_up(shape, &eager), Span::from_s(48));
    }
}
