//! `tailcast explain memory`: where the memory of replicas goes.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::{CliError, print};
use crate::hardware::KvCapacity;
use crate::report::table::Table;
use crate::scenario::{Loaded, ReplicaKind};

/// Where the memory of each kind of replica goes, and how many KV blocks are left
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The scenario
    scenario: PathBuf,
    /// Change a key, such as --set replicas.gpu_memory_utilization=0.9
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let scenario = Loaded::read(&arguments.scenario, &arguments.set)
        .and_then(|loaded| loaded.resolve())
        .map_err(CliError::input)?;
    for kind in &scenario.replicas {
        print(&format!("{} x {}\n", kind.count, kind.name))?;
        print(&kind.capacity.as_ref().map_or_else(String::new, |capacity| parts(capacity).render()))?;
        print(&conclusion(kind))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn parts(capacity: &KvCapacity) -> Table {
    let mut table = Table::new(&["memory of each card", "GiB", "how it is known"], 1);
    let mut row = |part: &str, bytes: u64, source: &str| {
        table.row(vec![part.into(), format!("{:.2}", bytes as f64 / (1u64 << 30) as f64), source.into()]);
    };
    row("what CUDA reports", capacity.total_bytes, "catalogue");
    row("what vLLM plans with", capacity.requested_bytes, "gpu_memory_utilization of it, rounded up");
    row("- weights and rotary table", capacity.weight_bytes, "from the shape");
    row("- activation peak of the profile run", capacity.activation_peak_bytes, "estimate from the shape");
    row("- CUDA graphs", capacity.cuda_graph_bytes, "estimate, by their number");
    row("- outside PyTorch", capacity.non_torch_bytes, "estimate, from published logs");
    row("= KV cache", capacity.available_bytes, "what is left");
    table
}

fn conclusion(kind: &ReplicaKind) -> String {
    let engine = &kind.facts.engine;
    let tokens = u64::from(engine.num_gpu_blocks - 1) * u64::from(engine.block_size);
    let mut text = match &kind.capacity {
        Some(capacity) => format!(
            "{} blocks of {} tokens, {:.3} MiB each\n",
            capacity.num_gpu_blocks,
            engine.block_size,
            capacity.bytes_per_block as f64 / (1u64 << 20) as f64
        ),
        None => "the memory model leaves too little for one sequence of max_model_len\n".into(),
    };
    if kind
        .capacity
        .as_ref()
        .is_none_or(|capacity| capacity.num_gpu_blocks != u64::from(engine.num_gpu_blocks))
    {
        text.push_str(&format!("overridden by num_gpu_blocks_override: {} blocks\n", engine.num_gpu_blocks));
    }
    text.push_str(&format!(
        "one is the null block; the others hold {tokens} tokens, {:.1} sequences of max_model_len = {}\n",
        tokens as f64 / f64::from(engine.max_model_len),
        engine.max_model_len
    ));
    for note in kind.capacity.iter().flat_map(|capacity| &capacity.notes) {
        text.push_str(&format!("note: {note}\n"));
    }
    text.push('\n');
    text
}
