//! Hardware: GPUs and models from the catalogue, and what follows from them (weights, KV bytes, blocks).
