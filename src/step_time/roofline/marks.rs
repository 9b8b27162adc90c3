//! What makes a figure less certain than those of dense models on H100 and H200, in words.

use super::gemm::{OTHER_EXPERTS, measured_experts};
use crate::hardware::coefficients;
use crate::hardware::models::{KvCacheDtype, MatrixFormat};
use crate::hardware::{Deployment, Gpu, Model};
use crate::step_time::links::OTHER_LINKS;

pub(super) fn marks(gpu: &Gpu, model: &Model, deployment: &Deployment) -> Vec<String> {
    let mut marks = Vec::new();
    let mut mark = |text: String| marks.push(text);
    if gpu.vendor != "NVIDIA" {
        mark(format!("{}: no operator of {} was measured; NVIDIA's form is assumed", gpu.name, gpu.vendor));
    }
    for (what, measured) in
        [("matrix products", &gpu.gemm_coefficients), ("attention", &gpu.attention_coefficients)]
    {
        match measured {
            None => {
                mark(format!("{}: {what} not measured on a near card, defaults stand for them", gpu.name))
            }
            Some(measured) if *measured != gpu.name => {
                mark(format!("{}: {what} taken from {measured}, relative to each card's peaks", gpu.name));
            }
            Some(_) => {}
        }
    }
    all_reduce(gpu, deployment, &mut mark);

    let formats = [model.dense_format(deployment.weight_dtype), model.expert_format(deployment.weight_dtype)];
    if formats.contains(&MatrixFormat::Fp8) {
        let measured = gpu.gemm_coefficients.as_deref().and_then(coefficients::gemm);
        if gpu.fp8_tflops.is_none() {
            mark(format!("{} has no fp8 arithmetic: fp8 weights are priced as bfloat16 products", gpu.name));
        } else if measured.is_none_or(|row| row.fp8_p.is_none()) {
            mark(format!("{}: fp8 products were not measured, defaults stand for them", gpu.name));
        }
    }
    if deployment.kv_cache_dtype == KvCacheDtype::Fp8 {
        let measured = gpu.attention_coefficients.as_deref();
        let row = measured.and_then(|name| coefficients::attention(name, KvCacheDtype::Fp8, model.head_dim));
        if row.is_none() {
            mark(format!(
                "{}: attention over fp8 KV was not measured, bfloat16 efficiency assumed",
                gpu.name
            ));
        }
    }
    if model.moe_layers > 0 {
        mark(format!(
            "{}: experts are 13 to 18 % off in the mean, and gates are taken to have favourites as that of Qwen3-30B-A3B has",
            model.name
        ));
        let measured = measured_experts(gpu).unwrap_or(OTHER_EXPERTS);
        if measured != gpu.name {
            mark(format!("{}: experts taken from {measured}, relative to each card's peaks", gpu.name));
        }
    }
    if model.is_mla() && !gpu.name.starts_with("h200") {
        mark(format!("{}: latent attention was measured on H200 alone", model.name));
    }
    if model.sliding_layers > 0 {
        mark(format!("{}: decodes in a sliding window are priced by their mean context", model.name));
    }
    if model.params_b < 3.0 {
        mark(format!("{}: under 3 B parameters launch and host times rule, which are estimates", model.name));
    }
    marks
}

fn all_reduce(gpu: &Gpu, deployment: &Deployment, mark: &mut dyn FnMut(String)) {
    let tensor_parallel_size = deployment.tensor_parallel_size;
    if deployment.expert_cards() < 2 {
        return;
    }
    let measured = gpu.allreduce_coefficients.as_deref();
    if measured != Some(gpu.name.as_str()) {
        let measured = measured.unwrap_or(OTHER_LINKS);
        mark(format!("{}: links between cards taken from {measured}", gpu.name));
    }
    if !tensor_parallel_size.is_power_of_two() {
        let next = tensor_parallel_size.next_power_of_two();
        mark(format!("all-reduce among {tensor_parallel_size} cards priced as among {next}"));
    }
}
