//! `tailcast trace hash`: logged prompts into keyed identities, on the machine where the log is.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::{CliError, Reading, Writing, check_not_input, say, say_notes};
use crate::compression;
use crate::request::{Content, ContentRun};
use crate::trace::Clock;

/// Turn the prompts of a log (JSON lines) into keyed identities of their blocks
///
/// Prompts are tokenised with the server's own tokenizer.json, and every block of 16 tokens becomes a hash of all tokens up to
/// its end under your key. What is written holds no text and no token: times, lengths and hashes alone. --columns says where
/// the log has times and lengths.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The log
    file: PathBuf,
    /// The server's tokenizer.json
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// The key of the prompt in each line, or of a list of messages with role and content
    #[arg(long, value_name = "KEY", default_value = "prompt")]
    prompt: String,
    /// A file whose bytes are the key of the hashes; keep it, or throw it away
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
}

/// Tokens of a block, as vLLM's own default.
const BLOCK_TOKENS: usize = 16;

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    arguments.writing.target()?;
    let key = super::anonymise::read_key(&arguments.key)?;
    let tokenizer = Tokenizer::from_file(&arguments.tokenizer).map_err(|error| {
        CliError::Input(format!(
            "--tokenizer: {}: is no tokenizer.json: {error}",
            arguments.tokenizer.display()
        ))
    })?;
    if arguments.reading.columns.is_empty() {
        return Err(CliError::Input(
            "--columns must say where the log has its times and lengths, as --columns \
             arrived=timestamp,prompt_tokens=usage.prompt_tokens,output_tokens=usage.completion_tokens"
                .into(),
        ));
    }
    let inputs = [&arguments.file, &arguments.tokenizer, &arguments.key];
    check_not_input("--out", &arguments.writing.out, inputs)?;
    let texts = texts(&arguments.file, &arguments.prompt)?;
    let mut trace = arguments.reading.read(std::slice::from_ref(&arguments.file), Clock::Absolute)?;
    say_notes(&trace);
    if trace.notes.rows_read != trace.rows.len() as u64 || trace.notes.out_of_order > 0 {
        return Err(CliError::Input(
            "rows were left out or stood out of order, so prompts cannot be told apart; filter and sort the log first"
                .into(),
        ));
    }
    let mut differ = 0;
    for (number, (row, text)) in trace.rows.iter_mut().zip(&texts).enumerate() {
        let encoded = tokenizer.encode(text.as_str(), true).map_err(|error| {
            CliError::Input(format!("{}:{}: {error}", arguments.file.display(), number + 1))
        })?;
        let ids = encoded.get_ids();
        differ += u64::from(ids.len() as u32 != row.prompt_tokens);
        row.content = identities(ids, &key).truncated(row.prompt_tokens);
    }
    if differ > 0 {
        say(&format!(
            "{differ} of {} prompts have another length than the log says (a chat template, or another tokenizer): they keep \
             the log's",
            trace.rows.len()
        ));
    }
    arguments.writing.write(&trace)
}

/// Hashes of blocks, each of all tokens up to its end.
fn identities(ids: &[u32], key: &[u8; 32]) -> Content {
    let mut hasher = blake3::Hasher::new_keyed(key);
    Content::from_runs(ids.chunks(BLOCK_TOKENS).map(|block| {
        for id in block {
            hasher.update(&id.to_le_bytes());
        }
        let bytes: [u8; 8] =
            hasher.finalize().as_bytes()[..8].try_into().expect("a hash has more than eight bytes");
        ContentRun { stream: u64::from_le_bytes(bytes) >> 1, position: 0, tokens: block.len() as u32 }
    }))
}

/// The prompt of each line.
fn texts(path: &Path, key: &str) -> Result<Vec<String>, CliError> {
    let shown = path.display();
    let failed = |error: std::io::Error| CliError::Input(format!("{shown}: {error}"));
    let plain = compression::open(BufReader::new(File::open(path).map_err(failed)?)).map_err(failed)?;
    let mut texts = Vec::new();
    for (number, line) in BufReader::new(plain).lines().enumerate() {
        let line = line.map_err(failed)?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| CliError::Input(format!("{shown}:{}: {what}", number + 1));
        let object: Value =
            serde_json::from_str(&line).map_err(|error| wrong(format!("not a JSON object: {error}")))?;
        let value = key.split('.').try_fold(&object, |value, key| value.get(key));
        let text = match value {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Array(messages)) => {
                messages.iter().map(message).collect::<Option<Vec<_>>>().map(|all| all.concat())
            }
            _ => None,
        };
        texts.push(
            text.ok_or_else(|| wrong(format!("{key}: expected a text, or messages with role and content")))?,
        );
    }
    Ok(texts)
}

/// A message as text: its role and what it says. The server's own template may write more between them.
fn message(message: &Value) -> Option<String> {
    Some(format!("{}\n{}\n", message.get("role")?.as_str()?, message.get("content")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_beginnings_have_equal_hashes() {
        let (a, b): (Vec<u32>, Vec<u32>) = ((0..40).collect(), (0..32).chain([7, 7]).collect());
        let (a, b) = (identities(&a, &[1; 32]), identities(&b, &[1; 32]));
        assert_eq!(a.truncated(32), b.truncated(32));
        assert_ne!(a.truncated(33), b.truncated(33));
        assert_ne!(identities(&[1; 16], &[1; 32]), identities(&[1; 16], &[2; 32]));
    }
}
