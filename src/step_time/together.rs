//! Steps of the data-parallel engines of one server that share their experts: all compute at the same time.
//!
//! Every engine pads its tokens to its next CUDA graph. If all of them have one, all are padded to the largest; if one
//! runs without, each keeps its own (vLLM's `coordinate_batch_across_dp`). Experts see the rows of all engines, and the
//! slowest engine sets the pace of the rest.

use crate::hardware::defaults::capture_size;

/// Rows that each engine computes for so many tokens of its own.
pub(super) fn rows(tokens: &[u64], max_captured: u32) -> Vec<u64> {
    let padded = |tokens: &u64| {
        let captured = u32::try_from(*tokens).ok().and_then(|tokens| capture_size(tokens, max_captured));
        captured.map(u64::from)
    };
    let graphs: Option<Vec<u64>> = tokens.iter().map(padded).collect();
    match graphs {
        Some(graphs) => vec![graphs.iter().copied().max().unwrap_or(0); graphs.len()],
        None => tokens.iter().map(|tokens| padded(tokens).unwrap_or(*tokens)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_of_all_engines_are_of_one_size() {
        assert_eq!(rows(&[6, 100], 256), vec![104, 104]);
        assert_eq!(rows(&[6, 1529], 256), vec![8, 1529]);
        assert_eq!(rows(&[6, 7], 0), vec![6, 7]);
    }
}
