//! A result's folder, read again so that its first repetition can be run again to the same bytes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{CliError, compare, results};
use crate::metrics::RunSummary;
use crate::report::json::SCHEMA_VERSION;
use crate::scenario::error::nearest_or_all;
use crate::scenario::{Loaded, Scenario};
use crate::study::Traces;
use crate::study::compare::{Contender, first_repetition};
use crate::workload::Job;

/// One policy or variant of a result.
pub(super) struct Reopened {
    /// As the result's table shows it.
    pub(super) name: String,
    /// As it was run, the warm-up included.
    pub(super) scenario: Scenario,
    /// The requests of its first repetition.
    pub(super) jobs: Arc<[Job]>,
    pub(super) recorded: Recorded,
}

/// What a result says of the first repetition.
pub(super) struct Recorded(Value);

impl Recorded {
    /// That of one policy or variant; nothing where the summary has none, which no run is like.
    pub(super) fn of(summary: &Value, name: &str) -> Recorded {
        let ranking = summary.get("ranking").and_then(Value::as_array);
        let ranked =
            ranking.into_iter().flatten().find(|ranked| ranked.get("name").is_some_and(|own| own == name));
        Recorded(ranked.and_then(|ranked| ranked.pointer("/repetitions/0")).cloned().unwrap_or_default())
    }

    /// Refuses a run that is not the one of the result.
    pub(super) fn check(&self, summary: &RunSummary, folder: &Path) -> Result<(), CliError> {
        let count = |key: &str| self.0.get(key).and_then(Value::as_u64);
        let p99_ms = self.0.get("e2e").and_then(|e2e| e2e.get("p99_ms")).and_then(Value::as_f64);
        let good = self.0.get("goodput_share").and_then(Value::as_f64);
        // Numbers in JSON are read to the last bit but one.
        let same = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs(),
            (a, b) => a == b,
        };
        let is_it = count("offered") == Some(summary.offered)
            && count("completed") == Some(summary.completed)
            && count("steps") == Some(summary.steps)
            && same(p99_ms, summary.e2e.p99_ms)
            && same(good, Some(summary.goodput_share));
        match is_it {
            true => Ok(()),
            false => Err(CliError::Input(format!(
                "{}: run again, its scenario gives other figures\nhelp: scenario.toml in it, a trace, a model, a profile or tailcast itself has changed \
                 since; make the result anew",
                folder.display()
            ))),
        }
    }
}

/// A result's folder, read.
pub(super) struct ReadResult {
    /// summary.json.
    pub(super) summary: Value,
    /// Names in order of the ranking.
    pub(super) names: Vec<String>,
    /// Those who were compared, as they were given.
    pub(super) contenders: Vec<Contender>,
}

/// Reads a result's folder.
pub(super) fn read_result(folder: &Path) -> Result<ReadResult, CliError> {
    let file = folder.join(results::SUMMARY);
    let refuse = |error: String| {
        let help = "name a folder that `tailcast compare` or `tailcast run --out` has written";
        CliError::Input(format!("{}: {error}\nhelp: {help}", file.display()))
    };
    let text = fs::read_to_string(&file).map_err(|error| refuse(error.to_string()))?;
    let summary: Value = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    let version = summary.get("schema_version").and_then(Value::as_u64);
    if version != Some(u64::from(SCHEMA_VERSION)) {
        return Err(refuse(format!("this tailcast reads results of schema version {SCHEMA_VERSION}")));
    }
    let ranking = summary.get("ranking").and_then(Value::as_array);
    let names: Vec<String> = ranking
        .into_iter()
        .flatten()
        .filter_map(|ranked| Some(ranked.get("name")?.as_str()?.to_string()))
        .collect();
    if names.is_empty() {
        return Err(refuse("it is no summary of a run or a comparison".into()));
    }
    let scenario = folder.join("scenario.toml");
    if !scenario.is_file() {
        return Err(refuse("the scenario.toml that it was made from is not beside it".into()));
    }
    let loaded = Loaded::read(&scenario, &[]).map_err(CliError::input)?;
    let contenders = contenders(&loaded, &names)?;
    if let Some(lost) = names.iter().find(|name| !contenders.iter().any(|contender| contender.name == **name))
    {
        return Err(refuse(format!("the scenario beside it has no policy or variant `{lost}`")));
    }
    Ok(ReadResult { summary, names, contenders })
}

/// Reads a result's folder for one of its policies and variants, the best unless named.
pub(super) fn reopen(folder: &Path, name: Option<&str>) -> Result<Reopened, CliError> {
    let ReadResult { summary, names, contenders } = read_result(folder)?;
    let name = name.unwrap_or(&names[0]);
    let Some(which) = contenders.iter().position(|contender| contender.name == name) else {
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        return Err(CliError::Input(format!(
            "--policy: `{name}` is not in {}\nhelp: {}",
            folder.display(),
            nearest_or_all(name, &known)
        )));
    };
    let recorded = Recorded::of(&summary, name);
    let (scenario, jobs) =
        first_repetition(&contenders, &mut Traces::default(), which).map_err(CliError::input)?;
    Ok(Reopened { name: name.to_string(), scenario, jobs, recorded })
}

/// Those who were compared, as they were given.
fn contenders(loaded: &Loaded, names: &[String]) -> Result<Vec<Contender>, CliError> {
    let mut contenders = compare::contenders_or_own(loaded, &[])?;
    let own = &loaded.file.router.policy;
    if !contenders.iter().any(|contender| contender.name == *own) {
        let scenario = loaded.resolve().map_err(CliError::input)?;
        contenders.push(Contender { name: own.clone(), scenario });
    }
    contenders.retain(|contender| names.contains(&contender.name));
    Ok(contenders)
}
