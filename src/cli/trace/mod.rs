//! `tailcast trace`: what is in a trace, and another trace from it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::results::check_not_input;
use super::{CliError, print, say};
use crate::random::Seed;
use crate::time::Span;
use crate::trace::{
    self, Clock, Field, ReadOptions, TARGETS, Target, TimeUnit, Trace as Requests, TraceError,
};
use crate::workload::shape::{Answers, OverLimit, Shape};

mod amplify;
mod anonymise;
mod check;
mod convert;
mod fit;
mod generate;
mod hash;
mod info;

/// Look into traces, and make others from them
#[derive(Debug, clap::Subcommand)]
pub(super) enum Trace {
    Info(info::Arguments),
    Check(check::Arguments),
    Convert(convert::Arguments),
    Generate(generate::Arguments),
    Fit(fit::Arguments),
    Amplify(amplify::Arguments),
    Anonymise(anonymise::Arguments),
    Hash(hash::Arguments),
}

pub(super) fn run(trace: &Trace) -> Result<ExitCode, CliError> {
    match trace {
        Trace::Info(arguments) => info::run(arguments),
        Trace::Check(arguments) => check::run(arguments),
        Trace::Convert(arguments) => convert::run(arguments),
        Trace::Generate(arguments) => generate::run(arguments),
        Trace::Fit(arguments) => fit::run(arguments),
        Trace::Amplify(arguments) => amplify::run(arguments),
        Trace::Anonymise(arguments) => anonymise::run(arguments),
        Trace::Hash(arguments) => hash::run(arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// How a trace is read
#[derive(Debug, clap::Args)]
struct Reading {
    /// Its format, where its content does not tell (`tailcast list formats`)
    #[arg(long)]
    format: Option<String>,
    /// Which column or key of any CSV or JSON lines holds what: arrived=ts,prompt_tokens=usage.prompt_tokens,...
    #[arg(long, value_name = "FIELD=COLUMN", value_delimiter = ',')]
    columns: Vec<String>,
    /// Only rows whose column or key has this value; with --columns
    #[arg(long = "where", value_name = "COLUMN=VALUE")]
    filters: Vec<String>,
    /// What a number in the column `arrived` counts: s, ms, us or ns
    #[arg(long, value_name = "UNIT", default_value = "s")]
    time_unit: String,
    /// Leave out and count rows that cannot be read, instead of refusing the file
    #[arg(long)]
    lenient: bool,
}

impl Reading {
    fn options(&self) -> Result<ReadOptions, CliError> {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                Ok((name.to_owned(), value.to_owned()))
            }
            _ => Err(CliError::Input(format!("expected NAME=VALUE, got \"{text}\""))),
        };
        let mut columns = Vec::new();
        for text in &self.columns {
            let (field, column) = pair(text)?;
            let field = Field::by_name(&field).map_err(CliError::input)?;
            if columns.iter().any(|(known, _)| *known == field) {
                return Err(CliError::Input(format!("--columns: {} is given twice", field.name())));
            }
            columns.push((field, column));
        }
        if columns.is_empty() && !self.filters.is_empty() {
            return Err(CliError::Input("--where belongs to --columns, which are not given".into()));
        }
        Ok(ReadOptions {
            format: self.format.clone(),
            columns,
            filters: self.filters.iter().map(pair).collect::<Result<_, _>>()?,
            time_unit: TimeUnit::by_name(&self.time_unit).map_err(CliError::input)?,
            lenient: self.lenient,
        })
    }

    /// The traces in `files` as one.
    fn read(&self, files: &[PathBuf], clock: Clock) -> Result<Requests, CliError> {
        let options = self.options()?;
        let read = |file: &PathBuf| trace::read(file, &options);
        let traces: Vec<Requests> =
            files.iter().map(read).collect::<Result<_, TraceError>>().map_err(CliError::input)?;
        let mut traces = traces.into_iter();
        match (traces.next(), traces.len()) {
            (Some(trace), 0) => Ok(trace),
            (Some(first), _) => {
                let merged = trace::merge(std::iter::once(first).chain(traces).collect(), clock);
                let last_s = merged.rows.last().map_or(0.0, |row| row.arrived.as_s());
                if last_s > LONGEST_S {
                    let days = last_s / 86_400.0;
                    return Err(CliError::Input(format!(
                        "the traces lie {days:.0} days apart, more than can be simulated\nhelp: \
                         --from-their-starts lets them begin together"
                    )));
                }
                Ok(merged)
            }
            (None, _) => Err(CliError::Input("name at least one trace".into())),
        }
    }
}

/// What of a trace is kept
#[derive(Debug, clap::Args)]
struct Cutting {
    /// Requests from here on only, seconds after the first
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    start_s: f64,
    /// Requests before this only, seconds after the first
    #[arg(long, value_name = "SECONDS")]
    end_s: Option<f64>,
    /// This share of the sessions, or of the groups that share a prefix
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    sample: f64,
    /// Leave out requests with longer prompts
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_prompt_tokens: Option<u32>,
    /// Leave out requests with longer outputs
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_output_tokens: Option<u32>,
    /// Cut what is too long to the limit, instead of leaving it out
    #[arg(long)]
    clip: bool,
    /// Times were rounded to a grid of so many milliseconds: move each request back by a draw from it
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    spread_ms: f64,
    /// Draws of the sample and the spread follow from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// No window reaches further than a run may last.
const LONGEST_S: f64 = 9e6;

impl Cutting {
    fn apply(&self, trace: &mut Requests) -> Result<(), CliError> {
        let span = |name: &str, seconds: f64| match seconds {
            seconds if (0.0..=LONGEST_S).contains(&seconds) => Ok(Span::from_s_f64(seconds)),
            _ => Err(CliError::Input(format!("--{name}: expected 0 to {LONGEST_S} seconds, got {seconds}"))),
        };
        if !(self.sample > 0.0 && self.sample <= 1.0) {
            return Err(CliError::Input(format!(
                "--sample: expected a share above 0 and up to 1, got {}",
                self.sample
            )));
        }
        if self.clip && self.max_prompt_tokens.is_none() && self.max_output_tokens.is_none() {
            return Err(CliError::Input(
                "--clip belongs to --max-prompt-tokens or --max-output-tokens".into(),
            ));
        }
        let shape = Shape {
            start: span("start-s", self.start_s)?,
            end: self.end_s.map(|end| span("end-s", end)).transpose()?,
            sample: self.sample,
            max_prompt_tokens: self.max_prompt_tokens,
            max_output_tokens: self.max_output_tokens,
            over_limit: if self.clip { OverLimit::Clip } else { OverLimit::Drop },
            spread: span("spread-ms", self.spread_ms / 1e3)?,
            answers: Answers::AsTheyAre,
        };
        let (rows, shaped) = shape.apply(std::mem::take(&mut trace.rows), Seed(self.seed));
        for line in shaped.lines() {
            say(&line);
        }
        if rows.is_empty() {
            return Err(CliError::Input("nothing is left of the trace".into()));
        }
        trace.rows = rows;
        Ok(())
    }
}

/// Where a trace is written
#[derive(Debug, clap::Args)]
struct Writing {
    /// The file to write; `.gz` and `.zst` are packed
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// The format to write; tailcast's own by the file's ending (.csv, .jsonl, .parquet) unless given
    #[arg(long, value_name = "FORMAT")]
    to: Option<String>,
}

impl Writing {
    fn target(&self) -> Result<&'static Target, CliError> {
        let shown = self.out.to_string_lossy();
        let plain = shown.trim_end_matches(".gz").trim_end_matches(".zst");
        let name = match (&self.to, plain.rsplit_once('.').map(|(_, end)| end)) {
            (_, Some(end @ ("xz" | "tar" | "bz2" | "zip"))) => {
                return Err(CliError::Input(format!(
                    "--out: files are packed as .gz or .zst, not as .{end}"
                )));
            }
            (Some(name), _) => name,
            (None, Some("csv")) => "tailcast-csv",
            (None, Some("parquet")) => "tailcast-parquet",
            (None, _) => "tailcast-jsonl",
        };
        TARGETS.iter().find(|target| target.name == name).ok_or_else(|| {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            CliError::Input(format!(
                "--to: no trace is written as \"{name}\"; these are: {}",
                names.join(", ")
            ))
        })
    }

    /// Writes the trace, whole or not at all, and says what is lost.
    fn write(&self, trace: &Requests) -> Result<(), CliError> {
        let target = self.target()?;
        replace(&self.out, |file| {
            let end = self.out.extension().and_then(|end| end.to_str());
            match end {
                Some("gz") => {
                    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::default());
                    target.write(trace, &mut packed)?;
                    packed.finish()?.flush()
                }
                Some("zst") => {
                    let mut packed = zstd::Encoder::new(file, 3)?;
                    target.write(trace, &mut packed)?;
                    packed.finish()?.flush()
                }
                _ => {
                    target.write(trace, file)?;
                    file.flush()
                }
            }
        })?;
        for loss in target.losses(trace) {
            say(&format!("lost: {loss}"));
        }
        say(&format!("{} requests are in {} ({})", trace.rows.len(), self.out.display(), target.name));
        Ok(())
    }
}

/// Writes a file under a temporary name beside it and renames it.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
) -> Result<(), CliError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| CliError::Write(format!("{}: {error}", path.display()));
    if path.is_dir() {
        return Err(CliError::Write(format!("{}: is a folder; name a file", path.display())));
    }
    if !folder.is_dir() {
        return Err(CliError::Write(format!(
            "{}: the folder {} does not exist",
            path.display(),
            folder.display()
        )));
    }
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    // A temporary file is for its owner alone; a result is for whoever may read the folder's other files.
    #[cfg(unix)]
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(failed)?;
    write(&mut BufWriter::with_capacity(1 << 20, file.as_file_mut())).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Says what was odd about a trace.
fn say_notes(trace: &Requests) {
    for line in trace.notes.lines() {
        say(&line);
    }
}
