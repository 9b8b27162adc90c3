//! How much power a card draws while it serves.
//!
//! Knows one curve, as shares of the card's TDP: ML.ENERGY's benchmark (v3.0) has an H100 SXM5 of 700 W at 300 W with
//! one sequence in the batch and at 600 W with 128, and between them the curve is drawn over the logarithm of the
//! batch. Idle with a model loaded is an estimate. A rule of thumb: H200s were measured at 137 to 300 W while they
//! decode (arXiv 2605.11999), a third of what this says, and long prompts draw more. Of the card alone: host, network
//! and cooling are not in it.

use super::Gpu;

/// With one sequence.
const ONE: f64 = 300.0 / 700.0;
/// With 128 and above.
const FULL: f64 = 600.0 / 700.0;
/// Idle, with a model loaded.
const IDLE: f64 = 0.15;
/// 128 is two to the power of this.
const DOUBLINGS: f64 = 7.0;

/// Watts of one card that works on `running` sequences, or idles with none; none where the catalogue has no TDP.
pub fn watts(gpu: &Gpu, running: usize) -> Option<f64> {
    let share = match running {
        0 => IDLE,
        running => ONE + (FULL - ONE) * ((running as f64).log2() / DOUBLINGS).min(1.0),
    };
    gpu.tdp_w.map(|tdp_w| tdp_w * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::gpu;

    #[test]
    fn an_h100_draws_what_was_measured() {
        let card = gpu("h100-sxm").unwrap();
        let draws = |running| watts(card, running).unwrap();
        assert!((draws(1) - 300.0).abs() < 1e-9 && (draws(128) - 600.0).abs() < 1e-9);
        assert_eq!(draws(128), draws(1_000));
        assert!(draws(0) < draws(1) && draws(8) > draws(4));
    }
}
