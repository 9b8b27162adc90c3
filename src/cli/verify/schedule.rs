//! `tailcast verify schedule`: the scheduler against recordings of vLLM's.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::super::{CliError, print};
use crate::compression;
use crate::replica::Path;
use crate::verify::schedule::{self, Difference};

/// Rebuild recordings of vLLM's scheduler and compare every field of every line
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Recordings of the golden format (.jsonl, .jsonl.gz), or folders of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Which way the replica composes its steps
    #[arg(long, value_enum, default_value_t = ReplicaPath::Fast)]
    replica: ReplicaPath,
    /// Print the recording rebuilt from the header of a single file instead of comparing
    #[arg(long)]
    emit: bool,
}

/// The two ways of composing a step.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ReplicaPath {
    /// As all runs do: on the decode clock, step by step only where that cannot go
    Fast,
    /// Visiting every sequence at every step: the judge of the other
    Literal,
}

impl From<ReplicaPath> for Path {
    fn from(path: ReplicaPath) -> Path {
        match path {
            ReplicaPath::Fast => Path::Fast,
            ReplicaPath::Literal => Path::Literal,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let files = recordings(&arguments.paths)?;
    if arguments.emit {
        return match files.as_slice() {
            [file] => emit(file, arguments.replica.into()),
            _ => {
                Err(CliError::Input(format!("--emit rebuilds one recording, but {} are named", files.len())))
            }
        };
    }
    let (mut steps, mut literal_steps, mut differences) = (0, 0, 0);
    let mut literal_files = Vec::new();
    for file in &files {
        let verdict =
            schedule::verify(open(file)?, arguments.replica.into()).map_err(|error| at(file, error))?;
        steps += verdict.steps;
        if verdict.literal_steps > 0 {
            literal_files.push(file.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        literal_steps += verdict.literal_steps;
        differences += verdict.differences;
        let mut line =
            format!("{}: {} steps, {} differences", file.display(), verdict.steps, verdict.differences);
        if matches!(arguments.replica, ReplicaPath::Fast) && verdict.literal_steps > 0 {
            line.push_str(&format!(", {} steps the literal way", verdict.literal_steps));
        }
        line.push('\n');
        if let Some(first) = &verdict.first {
            line.push_str(&first_difference(file, first));
        }
        print(&line)?;
    }
    if matches!(arguments.replica, ReplicaPath::Fast) && literal_steps > 0 {
        print(&format!(
            "{literal_steps} of {steps} steps forced the literal path, in {}\n",
            literal_files.join(", ")
        ))?;
    }
    print(&format!("{} files, {steps} steps, {differences} differences\n", files.len()))?;
    Ok(if differences == 0 && steps > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn emit(file: &std::path::Path, path: Path) -> Result<ExitCode, CliError> {
    let mut header = String::new();
    open(file)?.read_line(&mut header).map_err(|error| at(file, error))?;
    let parsed = schedule::read_header(&header).map_err(|error| at(file, error))?;
    let mut text = header.trim_end().to_string() + "\n";
    for line in schedule::rebuild(&parsed, path).map_err(|error| at(file, error))?.lines {
        text.push_str(&line.to_string());
        text.push('\n');
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn first_difference(file: &std::path::Path, first: &Difference) -> String {
    let shown = |value: &Option<Value>| value.as_ref().map_or("nothing".into(), Value::to_string);
    format!(
        "  first difference in {}, step {}, field {}\n    expected {}\n    got      {}\n",
        file.display(),
        first.step,
        first.field,
        shown(&first.expected),
        shown(&first.got)
    )
}

fn at(file: &std::path::Path, error: impl std::fmt::Display) -> CliError {
    CliError::Input(format!("{}: {error}", file.display()))
}

/// The files among `paths`, and those of the right ending in folders among them, in order of name.
fn recordings(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in path.read_dir().map_err(|error| at(path, error))? {
            let file = entry.map_err(|error| at(path, error))?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            return Err(at(path, "no .jsonl or .jsonl.gz file is in this folder"));
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

fn open(path: &std::path::Path) -> Result<BufReader<Box<dyn Read + Send>>, CliError> {
    let file = File::open(path).map_err(|error| at(path, error))?;
    let plain = compression::open(BufReader::new(file)).map_err(|error| at(path, error))?;
    Ok(BufReader::new(plain))
}
