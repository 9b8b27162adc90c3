//! `tailcast verify steps`: the roofline's operators against measured ones.

use std::path::PathBuf;
use std::process::ExitCode;

use super::super::{CliError, print};
use super::percent;
use crate::report::table::Table;
use crate::verify::steps::{self, Errors};

/// Hold the catalogue's operator prices against tables of measured operators
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Tables: gemm_CARD_bf16_*.csv.gz, attn_decode_CARD_*, attn_prefill_CARD_*, moe_CARD_*
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<PathBuf>,
    /// Exit with 1 if the median error of any table is larger, such as 5%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_median: Option<f64>,
    /// Exit with 1 if nine tenths of any table's rows are not within this error, such as 15%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_p90: Option<f64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let mut table =
        Table::new(&["card", "operator", "region", "rows", "median %", "mean %", "P90 %", "bias %"], 3);
    let mut left_out = String::new();
    let mut within = true;
    for path in &arguments.tables {
        let judged = steps::judge(path).map_err(|error| CliError::Input(error.to_string()))?;
        let mut row = |region: &str, errors: &Errors| {
            let whole = region == "all";
            let percent = |share: f64| format!("{:.1}", 100.0 * share);
            table.row(vec![
                if whole { judged.gpu.clone() } else { String::new() },
                if whole { judged.operator.into() } else { String::new() },
                region.into(),
                errors.count().to_string(),
                percent(errors.quantile(0.5)),
                percent(errors.mean()),
                percent(errors.quantile(0.9)),
                format!("{:+.1}", 100.0 * errors.bias()),
            ]);
        };
        row("all", &judged.all);
        for (region, errors) in &judged.regions {
            row(region, errors);
        }
        for (why, count) in &judged.left_out {
            left_out.push_str(&format!("left out of {}: {count} rows, {why}\n", path.display()));
        }
        within &= arguments.max_median.is_none_or(|limit| judged.all.quantile(0.5) <= limit);
        within &= arguments.max_p90.is_none_or(|limit| judged.all.quantile(0.9) <= limit);
    }
    print(&table.render())?;
    print(&left_out)?;
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
