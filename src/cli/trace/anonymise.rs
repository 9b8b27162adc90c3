//! `tailcast trace anonymise`: a trace that says nothing of who sent it.

use std::path::PathBuf;

use super::{CliError, Reading, Writing, check_not_input, say, say_notes};
use crate::trace::Clock;
use crate::trace::anonymise::{anonymise, key_of};

/// Write a trace with keyed hashes in place of identities, without dates, and with lengths in buckets
///
/// Without the key nobody can tell whether a known text or session is in the trace, and traces under different keys cannot
/// be joined. Arrivals, lengths beyond the bucket, and who shares with whom stay: a replay needs them.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The trace
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// A file whose bytes are the key; keep it, or throw it away
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Round lengths up to multiples of this
    #[arg(long, value_name = "TOKENS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    bucket_tokens: u32,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
}

/// Shorter keys can be tried out.
const SHORTEST_KEY: usize = 16;

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    arguments.writing.target()?;
    let key = read_key(&arguments.key)?;
    check_not_input("--out", &arguments.writing.out, arguments.files.iter().chain([&arguments.key]))?;
    let mut trace = arguments.reading.read(&arguments.files, Clock::Absolute)?;
    say_notes(&trace);
    anonymise(&mut trace, &key, arguments.bucket_tokens);
    say(&format!(
        "identities are hashed, dates dropped, lengths rounded up to {} tokens",
        arguments.bucket_tokens
    ));
    arguments.writing.write(&trace)
}

/// The key in a file.
pub(super) fn read_key(path: &std::path::Path) -> Result<[u8; 32], CliError> {
    let bytes = std::fs::read(path)
        .map_err(|error| CliError::Input(format!("--key: {}: {error}", path.display())))?;
    if bytes.len() < SHORTEST_KEY {
        return Err(CliError::Input(format!(
            "--key: {}: holds {} bytes; a key of fewer than {SHORTEST_KEY} can be guessed\nhelp: head -c 32 /dev/urandom > {}",
            path.display(),
            bytes.len(),
            path.display()
        )));
    }
    Ok(key_of(&bytes))
}
