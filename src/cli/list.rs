//! `tailcast list`: the names that scenarios may use.

use std::process::ExitCode;

use super::{CliError, print};
use crate::autoscaler::AUTOSCALERS;
use crate::hardware::{gpus, models};
use crate::report::table::{Table, number};
use crate::router::policies::OWN;
use crate::router::{Freshness, POLICIES};
use crate::trace::FORMATS;

/// List the names that scenarios may use
#[derive(Debug, clap::Subcommand)]
pub(super) enum List {
    /// Routing policies, what they read, and what products call them
    Policies,
    /// Autoscalers, what they read, and the products that have them
    Autoscalers,
    /// Models of the catalogue
    Models,
    /// GPUs of the catalogue
    Gpus,
    /// Trace formats
    Formats,
}

pub(super) fn run(list: &List) -> Result<ExitCode, CliError> {
    let table = match list {
        List::Policies => policies(),
        List::Autoscalers => autoscalers(),
        List::Models => model_table(),
        List::Gpus => gpu_table(),
        List::Formats => formats(),
    };
    print(&table.render())?;
    Ok(ExitCode::SUCCESS)
}

fn policies() -> Table {
    let mut table = Table::new(&["name", "family", "reads", "gauges", "as in"], 5);
    for policy in POLICIES.iter().chain(OWN) {
        let freshness = match policy.default_freshness {
            None => "not read".to_string(),
            Some(Freshness::Fresh) => "fresh".to_string(),
            Some(Freshness::Polled { interval }) => format!("polled every {} ms", interval.as_ms()),
        };
        table.row(
            [policy.name, policy.family, policy.reads, &freshness, policy.upstream]
                .map(String::from)
                .to_vec(),
        );
    }
    table
}

fn autoscalers() -> Table {
    let mut table = Table::new(&["name", "reads", "decides every", "as in"], 4);
    for info in AUTOSCALERS {
        let interval = format!("{} s", info.default_interval.as_s());
        table.row([info.name, info.reads, &interval, info.upstream].map(String::from).to_vec());
    }
    table
}

fn model_table() -> Table {
    let head = ["name", "hugging face id", "parameters 10^9", "layers", "heads", "KV heads", "max positions"];
    let mut table = Table::new(&head, 2);
    for model in models() {
        table.row(vec![
            model.name.clone(),
            model.hf_id.clone(),
            number(model.params_b),
            model.layers.to_string(),
            model.heads.to_string(),
            model.kv_heads.to_string(),
            model.max_position.to_string(),
        ]);
    }
    table
}

fn gpu_table() -> Table {
    let head =
        ["name", "architecture", "memory GB", "bandwidth GB/s", "bf16 TFLOP/s", "fp8 TFLOP/s", "$/hour"];
    let mut table = Table::new(&head, 2);
    let or_dash = |value: Option<f64>| value.map_or("-".into(), number);
    for gpu in gpus() {
        table.row(vec![
            gpu.name.clone(),
            gpu.architecture.clone(),
            number(gpu.memory_gb),
            number(gpu.memory_bandwidth_gb_per_s),
            number(gpu.bf16_tflops),
            or_dash(gpu.fp8_tflops),
            or_dash(gpu.usd_per_hour),
        ]);
    }
    table
}

fn formats() -> Table {
    let mut table = Table::new(&["name", "what it is"], 2);
    for format in FORMATS {
        table.row(vec![format.name.to_string(), format.description.to_string()]);
    }
    table
}
