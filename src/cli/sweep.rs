//! `tailcast sweep` and `tailcast merge`: a scenario at many settings, in parallel, and as often interrupted as need be.
//!
//! A sweep's folder has `sweep.json`, the plan, and `cells/`, a file for each cell that is done; each appears whole. What is done is
//! not done again. When all cells are there, `sweep.csv` and the pictures are made from them, so they are the same bytes whoever
//! made which cell, and when.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::results::{TEMPORARY, cannot, put};
use super::{CliError, RunOptions, check_that_keys_are_read, compare, print, progress, say};
use crate::random::Seed;
use crate::report::plots::Plot;
use crate::report::sweep::{self as report, Findings};
use crate::scenario::Loaded;
use crate::study::compare::{Contender, Repetitions};
use crate::study::sweep::{Axis, Cell, grid, latin_hypercube};
use crate::study::{self, Keep, StudyError, Traces};

/// Run a scenario at many settings: any keys over lists or ranges, policies included. Run it again to go on where it was stopped
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: RunOptions,
    /// A key and its values: KEY=A,B,C, or KEY=LOW..HIGH/COUNT (`/COUNTlog` for equal ratios); several times for a grid
    #[arg(long, value_name = "KEY=VALUES", required = true)]
    over: Vec<String>,
    /// So many settings, drawn as a Latin hypercube, instead of the whole grid; ranges then need no count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    latin_hypercube: Option<u32>,
    /// Policies to compare in each cell, separated by commas; the scenario's `policies` and `[[variants]]` unless given, else its
    /// router's
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    policies: Vec<String>,
    /// Only the I-th of N equal parts of the cells: one machine of N. `tailcast merge` puts them together
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// The sweep's folder; output/NAME-OF-THE-SCENARIO-sweep unless given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Put the shards of a sweep together, the same bytes as one machine would have made
#[derive(Debug, clap::Args)]
pub(super) struct MergeArguments {
    /// The shards' folders
    #[arg(required = true)]
    shards: Vec<PathBuf>,
    /// The whole sweep's folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

const PLAN: &str = "sweep.json";
const TABLE: &str = "sweep.csv";
const CELLS: &str = "cells";

/// What a sweep is, the same for all its shards.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Plan {
    schema_version: u32,
    tailcast: String,
    title: String,
    /// The scenario as written, with `--set` laid over it.
    scenario: String,
    /// Content of the files that it reads: a digest of each, by path.
    inputs: Vec<(String, String)>,
    keys: Vec<String>,
    policies: Vec<String>,
    cells: Vec<Cell>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let options = &arguments.options;
    let (part, parts) = shard(arguments.shard.as_deref())?;
    let loaded = Loaded::read(&options.scenario, &options.assignments()).map_err(CliError::input)?;
    let plan = plan(arguments, &loaded)?;
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => {
            let stem = options.scenario.file_stem().unwrap_or("scenario".as_ref()).to_string_lossy();
            PathBuf::from("output").join(format!("{stem}-sweep"))
        }
    };
    let own: Vec<usize> = (0..plan.cells.len()).filter(|cell| cell % parts == part).collect();
    let is_missing = |cell: &usize| !cell_file(&out, *cell).is_file();
    let missing: Vec<usize> = own.iter().copied().filter(is_missing).collect();
    // A mistake in any cell is told before anything is written or run. Traces are kept from here on, as cells share them;
    // contenders are not, since each binds tables of its own.
    let mut traces = Traces::default();
    for &cell in &missing {
        let checked = contenders(arguments, &plan, cell).and_then(|contenders| {
            let read = |contender: &Contender| traces.of(&contender.scenario.workload).map(|_| ());
            contenders.iter().try_for_each(read).map_err(CliError::input)
        });
        checked.map_err(|error| in_cell(error, &plan, cell))?;
    }
    open(&out, &plan)?;
    if !options.quiet && missing.len() < own.len() {
        say(&format!("{} of {} cells are done already", own.len() - missing.len(), own.len()));
    }
    let bar = progress(missing.len() as u64, options.quiet);
    let one = |&cell: &usize| {
        let contenders = contenders(arguments, &plan, cell)?;
        let comparison =
            compared(&contenders, traces.clone()).map_err(|error| in_cell(error, &plan, cell))?;
        let rows = report::rows(cell, &plan.cells[cell], &comparison, &contenders)
            .map_err(|error| CliError::Write(error.to_string()))?;
        put_cell(&out, cell, &rows)?;
        bar.inc(1);
        Ok(())
    };
    options.threads.run(|| missing.par_iter().map(one).collect::<Result<(), CliError>>())??;
    bar.finish_and_clear();
    if (0..plan.cells.len()).any(|cell| !cell_file(&out, cell).is_file()) {
        if !options.quiet {
            say(&format!(
                "{} cells of this shard are in {}; put shards together with `tailcast merge`",
                own.len(),
                out.display()
            ));
        }
        return Ok(ExitCode::SUCCESS);
    }
    finish(&out, &plan, options.quiet)
}

pub(super) fn merge(arguments: &MergeArguments) -> Result<ExitCode, CliError> {
    let plans =
        arguments.shards.iter().map(|shard| read_plan(shard)).collect::<Result<Vec<Plan>, CliError>>()?;
    for (shard, plan) in arguments.shards.iter().zip(&plans) {
        if *plan != plans[0] {
            return Err(CliError::Input(format!(
                "{} is of another sweep than {}\nhelp: shards must have the same scenario, keys, values and policies",
                shard.display(),
                arguments.shards[0].display()
            )));
        }
    }
    let plan = &plans[0];
    open(&arguments.out, plan)?;
    for cell in 0..plan.cells.len() {
        let folders = arguments.shards.iter().chain([&arguments.out]);
        let Some(made) = folders.into_iter().find(|folder| cell_file(folder, cell).is_file()) else {
            return Err(CliError::Input(format!(
                "cell {cell} is in none of the shards\nhelp: run the shard that has it, cell {cell} of {}, to its end",
                plan.cells.len()
            )));
        };
        put_cell(&arguments.out, cell, &read_cell(made, cell)?)?;
    }
    finish(&arguments.out, plan, false)
}

/// The error, and the setting it comes from.
fn in_cell(error: CliError, plan: &Plan, cell: usize) -> CliError {
    let setting = plan.keys.iter().zip(&plan.cells[cell]).map(|(key, value)| format!("{key}={value}"));
    let setting = setting.collect::<Vec<_>>().join(", ");
    match error {
        CliError::Input(message) => CliError::Input(format!("cell {cell}, {setting}:\n{message}")),
        CliError::Write(_) => error,
    }
}

/// Part and number of parts, from 0 on.
fn shard(text: Option<&str>) -> Result<(usize, usize), CliError> {
    let Some(text) = text else { return Ok((0, 1)) };
    let numbers =
        text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    match numbers {
        Some((part, parts)) if (1..=parts).contains(&part) => Ok((part - 1, parts)),
        _ => Err(CliError::Input(format!(
            "--shard: expected I/N with I from 1 to N, such as 2/4, got `{text}`"
        ))),
    }
}

fn plan(arguments: &Arguments, loaded: &Loaded) -> Result<Plan, CliError> {
    let wrong = |message: String| CliError::Input(format!("--over: {message}"));
    let axes = arguments
        .over
        .iter()
        .map(|text| Axis::parse(text))
        .collect::<Result<Vec<Axis>, String>>()
        .map_err(wrong)?;
    for (index, axis) in axes.iter().enumerate() {
        if axes[..index].iter().any(|before| before.key == axis.key) {
            return Err(wrong(format!("`{}` is there twice", axis.key)));
        }
        if axis.key == "router.policy" && !arguments.policies.is_empty() {
            return Err(wrong(
                "router.policy is what --policies compares\nhelp: leave out one of the two".into(),
            ));
        }
    }
    for assignment in &arguments.options.set {
        let key = assignment.split('=').next().unwrap_or_default().trim();
        if axes.iter().any(|axis| axis.key == key) {
            return Err(wrong(format!("`{key}` is also given to --set\nhelp: leave out one of the two")));
        }
    }
    let cells = match arguments.latin_hypercube {
        Some(count) => latin_hypercube(&axes, count as usize, Seed(loaded.file.seed)),
        None => grid(&axes).map_err(wrong)?,
    };
    Ok(Plan {
        schema_version: crate::report::json::SCHEMA_VERSION,
        tailcast: env!("CARGO_PKG_VERSION").into(),
        title: loaded.file.title.clone(),
        scenario: loaded.text().into(),
        inputs: loaded.inputs().into_iter().map(|file| digest(&file)).collect::<Result<_, CliError>>()?,
        keys: axes.into_iter().map(|axis| axis.key).collect(),
        policies: arguments.policies.clone(),
        cells,
    })
}

/// A file and the digest of what it holds, so that a sweep does not go on with other contents.
fn digest(file: &Path) -> Result<(String, String), CliError> {
    let cannot = |error: std::io::Error| CliError::Input(format!("{}: {error}", file.display()));
    let mut opened = fs::File::open(file).map_err(cannot)?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match opened.read(&mut chunk).map_err(cannot)? {
            0 => break,
            bytes => hasher.update(&chunk[..bytes]),
        };
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Ok((name.into_owned(), hasher.finalize().to_hex().to_string()))
}

/// Who is compared in a cell.
fn contenders(arguments: &Arguments, plan: &Plan, cell: usize) -> Result<Vec<Contender>, CliError> {
    let mut assignments = arguments.options.assignments();
    assignments.extend(plan.keys.iter().zip(&plan.cells[cell]).map(|(key, value)| format!("{key}={value}")));
    let loaded = Loaded::read(&arguments.options.scenario, &assignments).map_err(CliError::input)?;
    let contenders = compare::contenders_or_own(&loaded, &plan.policies)?;
    check_that_keys_are_read(&loaded, &contenders)?;
    Ok(contenders)
}

fn compared(contenders: &[Contender], mut traces: Traces) -> Result<study::Comparison, CliError> {
    let made: Result<_, StudyError> =
        study::compare(contenders, &mut traces, Repetitions::Fixed, false, Keep::Nothing, &|| ());
    made.map_err(CliError::input)
}

fn cell_file(out: &Path, cell: usize) -> PathBuf {
    out.join(CELLS).join(format!("{cell:06}.csv"))
}

/// What stands before the digest in the last line of a cell's file.
const DIGEST: &[u8] = b"# blake3 ";

/// The digest of a cell's rows, which are of this cell alone.
fn cell_digest(cell: usize, rows: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(cell as u64).to_le_bytes());
    hasher.update(rows);
    hasher.finalize().to_hex().to_string()
}

/// Writes a cell's rows, and behind them their digest.
fn put_cell(out: &Path, cell: usize, rows: &[u8]) -> Result<(), CliError> {
    let digest = cell_digest(cell, rows);
    put(&cell_file(out, cell), &[rows, DIGEST, digest.as_bytes(), b"\n"].concat())
}

/// A cell's rows, if they are those that were written.
fn read_cell(folder: &Path, cell: usize) -> Result<Vec<u8>, CliError> {
    let file = cell_file(folder, cell);
    let mut bytes = fs::read(&file).map_err(|error| cannot(&file, &error))?;
    let rows = bytes.windows(DIGEST.len()).rposition(|place| place == DIGEST);
    let whole = rows.filter(|&rows| {
        let digest = &bytes[rows + DIGEST.len()..];
        digest.strip_suffix(b"\n") == Some(cell_digest(cell, &bytes[..rows]).as_bytes())
    });
    match whole {
        Some(rows) => {
            bytes.truncate(rows);
            Ok(bytes)
        }
        None => Err(CliError::Input(format!(
            "{}: this is not what the sweep wrote there for cell {cell}\nhelp: remove the file and run the sweep again",
            file.display()
        ))),
    }
}

fn read_plan(folder: &Path) -> Result<Plan, CliError> {
    let file = folder.join(PLAN);
    let text = fs::read_to_string(&file).map_err(|error| {
        CliError::Input(format!(
            "{}: {error}\nhelp: name the folder of a sweep, which has a {PLAN}",
            file.display()
        ))
    })?;
    serde_json::from_str(&text).map_err(|error| {
        CliError::Input(format!(
            "{}: {error}\nhelp: this is no plan of a sweep that this version made",
            file.display()
        ))
    })
}

/// Makes the folder, or finds that it is of this very sweep, or of one of which nothing is done.
fn open(out: &Path, plan: &Plan) -> Result<(), CliError> {
    if out.join(PLAN).is_file() {
        let nothing_done = fs::read_dir(out.join(CELLS)).map_or(true, |mut cells| cells.next().is_none());
        return match read_plan(out)? == *plan {
            true => Ok(()),
            false if nothing_done => put_plan(out, plan),
            false => Err(CliError::Input(format!(
                "{} holds another sweep: another scenario or trace, other keys, values or policies, or another version\nhelp: name another \
                 folder with --out, or remove that one",
                out.display()
            ))),
        };
    }
    let foreign = |entry: std::io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| !entry.file_name().to_string_lossy().starts_with(TEMPORARY))
    };
    if fs::read_dir(out).is_ok_and(|mut entries| entries.any(foreign)) || out.is_file() {
        return Err(CliError::Input(format!(
            "{} is there already and is no sweep (it has no {PLAN})\nhelp: name another folder with --out",
            out.display()
        )));
    }
    put_plan(out, plan)
}

fn put_plan(out: &Path, plan: &Plan) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(plan).map_err(|error| CliError::Write(error.to_string()))?;
    put(&out.join(PLAN), (text + "\n").as_bytes())
}

/// Makes the table and the pictures of a sweep whose cells are all there.
fn finish(out: &Path, plan: &Plan, quiet: bool) -> Result<ExitCode, CliError> {
    let mut table = report::head(&plan.keys).map_err(|error| CliError::Write(error.to_string()))?;
    for cell in 0..plan.cells.len() {
        table.extend(read_cell(out, cell)?);
    }
    let findings = Findings::of(&table).map_err(|error| {
        CliError::Input(format!(
            "{}: {error}\nhelp: a file in it is broken; remove it and run the sweep again",
            out.join(CELLS).display()
        ))
    })?;
    put(&out.join(TABLE), &table)?;
    for Plot { name, svg, png } in
        findings.plots(&plan.title).map_err(|error| CliError::Write(error.to_string()))?
    {
        put(&out.join(format!("{name}.svg")), svg.as_bytes())?;
        put(&out.join(format!("{name}.png")), &png)?;
    }
    print(&findings.text())?;
    if !quiet {
        say(&format!("{} cells are in {}", plan.cells.len(), out.join(TABLE).display()));
    }
    Ok(ExitCode::SUCCESS)
}
