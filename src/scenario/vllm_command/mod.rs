//! A `vllm serve ...` command line as scenario keys.
//!
//! Knows the flags of vLLM 0.24, how vLLM reads a command line, and for every flag one of three fates: it sets
//! a key of `[[replicas]]`, it has no say in time, or it changes time in a way that is not modelled.
//! Does not know what a scenario makes of a key, which models and GPUs exist, or files named by the command.

use thiserror::Error;
use toml::Value;

use flags::{Found, Rule, Takes};
use values::Reading;

mod flags;
#[cfg(test)]
mod tests;
mod values;

/// What becomes of a flag.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It sets a key of `[[replicas]]`.
    Mapped {
        /// The key.
        key: &'static str,
        /// Its value.
        value: Value,
    },
    /// It has no say in time.
    Irrelevant {
        /// Why not.
        reason: &'static str,
    },
    /// It changes time in a way that is not modelled.
    Refused {
        /// What it would change.
        reason: String,
    },
}

/// One flag of a command line, the positional model and environment assignments included.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// The flag and its values as written; keys and tokens show as `***`, for this text ends up in files.
    pub text: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// A command line, flag by flag, in the order written.
#[derive(Clone, Debug, PartialEq)]
pub struct VllmCommand {
    /// All of its flags.
    pub flags: Vec<Flag>,
}

/// Why a text is not a command that starts vLLM.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Nothing was written.
    #[error("the command is empty; expected `vllm serve MODEL ...`")]
    Empty,
    /// A quote is left open.
    #[error("a quote in the command is never closed")]
    OpenQuote,
    /// The command starts something else.
    #[error("expected `vllm serve MODEL ...`, got `{0}`")]
    NotVllm(String),
    /// No model is named.
    #[error("the command names no model; write it after `vllm serve`")]
    NoModel,
    /// A model is named both by position and by `--model`.
    #[error("the command names its model twice, as `{0}` and with `--model`")]
    TwoModels(String),
    /// A word that belongs to no flag.
    #[error("unexpected `{0}`: it belongs to no flag")]
    Unexpected(String),
    /// No flag has this name.
    #[error("vLLM 0.24 has no flag `{flag}`{}", suggestion(.nearest.as_deref()))]
    Unknown {
        /// The flag as written.
        flag: String,
        /// A known flag that looks like it.
        nearest: Option<String>,
    },
    /// A flag stands without its value.
    #[error("`{0}` needs a value")]
    NoValue(String),
    /// A value is not what its flag takes.
    #[error("`{flag}`: expected {expected}, got `{got}`")]
    BadValue {
        /// The flag.
        flag: String,
        /// What it takes.
        expected: &'static str,
        /// What was written.
        got: String,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

impl VllmCommand {
    /// The flags that change time in a way that is not modelled.
    pub fn refused(&self) -> impl Iterator<Item = &Flag> {
        self.flags.iter().filter(|flag| matches!(flag.fate, Fate::Refused { .. }))
    }

    /// The keys set, each once, in the order written.
    pub fn mapped(&self) -> Vec<(&'static str, Value)> {
        let keys = self.flags.iter().filter_map(|flag| match &flag.fate {
            Fate::Mapped { key, value } => Some((*key, value.clone())),
            Fate::Irrelevant { .. } | Fate::Refused { .. } => None,
        });
        keys.collect()
    }

    /// The model served.
    pub fn model(&self) -> Option<&str> {
        self.flags.iter().find_map(|flag| match &flag.fate {
            Fate::Mapped { key: "model", value } => value.as_str(),
            _ => None,
        })
    }
}

/// Reads a command as a shell and then vLLM would.
///
/// Before `vllm serve` may stand environment assignments and a wrapper such as `sudo`; the Python module
/// `vllm.entrypoints.openai.api_server` and `docker run ... vllm/vllm-openai` start vLLM as well.
/// Nothing is expanded: a variable of the shell is not known here.
///
/// # Errors
/// If the text is no such command, names no model, or has a flag or a value that vLLM would not take.
pub fn parse(command: &str) -> Result<VllmCommand, CommandError> {
    let words = shell_words::split(command).map_err(|_| CommandError::OpenQuote)?;
    if words.is_empty() {
        return Err(CommandError::Empty);
    }
    let (launcher, arguments) = split_launcher(&words)?;
    let environment = launcher.iter().filter_map(|word| environment(word));
    let mut written: Vec<Written> = environment.collect();
    let mut rest = arguments;
    while let Some((word, after)) = rest.split_first() {
        if is_flag(word) {
            let (flag, used) = read_flag(rest)?;
            written.push(flag);
            rest = &rest[used..];
        } else if written.iter().any(|earlier| earlier.identity == POSITION) {
            return Err(CommandError::Unexpected(word.clone()));
        } else {
            let model = flags::find("--model").ok_or(CommandError::NoModel)?;
            written.push(Written {
                identity: POSITION.to_string(),
                flag: Flag { text: shell_words::quote(word).into_owned(), fate: fate(&model, word)? },
            });
            rest = after;
        }
    }
    check_models(&written)?;
    Ok(VllmCommand { flags: last_wins(written) })
}

/// A flag, and what makes two spellings the same flag.
struct Written {
    identity: String,
    flag: Flag,
}

/// Identity of the model named by position.
const POSITION: &str = "MODEL";

/// The words that start vLLM, and those that it reads.
fn split_launcher(words: &[String]) -> Result<(&[String], &[String]), CommandError> {
    let mut in_container = false;
    for (index, word) in words.iter().enumerate() {
        let program = word.rsplit('/').next().unwrap_or(word);
        let next = words.get(index + 1).map(String::as_str);
        let used = match program {
            "vllm" if next == Some("serve") => 2,
            "-m" if next == Some("vllm.entrypoints.openai.api_server") => 2,
            _ if in_container && program.starts_with("vllm-openai") => {
                // The image starts the server by itself, but an entry point may have been written all the same.
                let entry =
                    words[index + 1..].iter().take_while(|word| ["vllm", "serve"].contains(&word.as_str()));
                1 + entry.count()
            }
            _ => 0,
        };
        if used > 0 {
            return Ok((&words[..index], &words[index + used..]));
        }
        in_container |= ["docker", "podman", "nerdctl"].contains(&program);
    }
    Err(CommandError::NotVllm(words[..words.len().min(2)].join(" ")))
}

/// A word before the command that sets a variable of the environment.
fn environment(word: &str) -> Option<Written> {
    let (name, _) = word.split_once('=')?;
    let proper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || !name.bytes().all(proper) {
        return None;
    }
    let harmless =
        ["VLLM_USE_V1=1", "VLLM_LOGGING_LEVEL", "VLLM_CONFIGURE_LOGGING", "VLLM_API_KEY", "VLLM_HOST_IP"]
            .iter()
            .chain(&[
                "VLLM_PORT",
                "VLLM_CACHE_ROOT",
                "VLLM_NO_USAGE_STATS",
                "VLLM_USE_MODELSCOPE",
                "VLLM_DO_NOT_TRACK",
            ])
            .any(|known| *known == name || *known == word);
    let fate = if name.starts_with("VLLM_") && !harmless {
        Fate::Refused {
            reason: "what this variable of the environment does to time is not known here".to_string(),
        }
    } else {
        Fate::Irrelevant { reason: "an environment variable that vLLM's scheduler does not read" }
    };
    let secret = ["KEY", "TOKEN", "SECRET", "PASSWORD"].iter().any(|ending| name.ends_with(ending));
    let text = if secret { format!("{name}=***") } else { shell_words::quote(word).into_owned() };
    Some(Written { identity: name.to_string(), flag: Flag { text, fate } })
}

/// Whether `argparse` takes a word for a flag: it begins with a dash, is no negative number and no sentence.
fn is_flag(word: &str) -> bool {
    let head = word.split('=').next().unwrap_or(word);
    let number = head.starts_with('-') && head.parse::<f64>().is_ok_and(f64::is_finite);
    head.len() > 1 && head.starts_with('-') && !number && !head.contains(char::is_whitespace)
}

/// The flag that `words` begin with, and how many of them it takes.
fn read_flag(words: &[String]) -> Result<(Written, usize), CommandError> {
    let word = words[0].as_str();
    let (head, inline) = match word.strip_prefix("-O") {
        // `-O3`, `-O=3` and `-O 3` are ways to write the optimization level.
        Some("") => ("--optimization-level".to_string(), None),
        Some(level) => ("--optimization-level".to_string(), Some(level.strip_prefix('=').unwrap_or(level))),
        None => match word.split_once('=') {
            Some((head, value)) => (head.to_string(), Some(value)),
            None => (word.to_string(), None),
        },
    };
    // `--speculative-config.method ngram` sets one field of a flag whose value is JSON.
    let (name, field) =
        head.split_once('.').map_or((head.as_str(), None), |(name, field)| (name, Some(field)));
    let name = if name.starts_with("--") { name.replace('_', "-") } else { name.to_string() };
    let unknown = || CommandError::Unknown { flag: head.clone(), nearest: flags::nearest(&name) };
    let found = flags::find(&name).ok_or_else(unknown)?;
    if field.is_some() && (found.takes != Takes::One || matches!(found.rule, Rule::Sets(..))) {
        return Err(unknown());
    }

    let following = words[1..].iter().take_while(|word| !is_flag(word)).count();
    let used = match (found.takes, inline) {
        (_, Some(_)) | (Takes::Switch, None) => 1,
        (Takes::One, None) => 1 + following.min(1),
        (Takes::Many | Takes::Secret, None) => 1 + following,
    };
    let value = match (found.takes, inline) {
        (Takes::Switch, None) => (!found.negated).to_string(),
        (Takes::Switch, Some(value)) => {
            return Err(CommandError::BadValue {
                flag: head,
                expected: "no value (`--no-` before the name turns it off)",
                got: value.to_string(),
            });
        }
        (_, Some(value)) => value.to_string(),
        (Takes::One | Takes::Many, None) if following == 0 => return Err(CommandError::NoValue(head)),
        (_, None) => words[1..used].join(" "),
    };
    let text =
        if found.takes == Takes::Secret { format!("{head} ***") } else { shell_words::join(&words[..used]) };
    let identity = field.map_or(found.name.to_string(), |field| format!("{}.{field}", found.name));
    Ok((Written { identity, flag: Flag { text, fate: fate(&found, &value)? } }, used))
}

/// What becomes of a flag with this value.
fn fate(found: &Found, value: &str) -> Result<Fate, CommandError> {
    let bad = |expected| {
        Err(CommandError::BadValue { flag: found.name.to_string(), expected, got: value.to_string() })
    };
    match found.rule {
        Rule::Sets(key, read) => match read(value) {
            Reading::Good(value) => Ok(Fate::Mapped { key, value }),
            Reading::NotModelled(reason) => Ok(Fate::Refused { reason: reason.to_string() }),
            Reading::Bad(expected) => bad(expected),
        },
        Rule::Ignored(reason) => Ok(Fate::Irrelevant { reason }),
        Rule::Refused(reason) => Ok(Fate::Refused { reason: reason.to_string() }),
        Rule::RefusedUnless(defaults, reason) => {
            let number = |text: &str| text.parse::<f64>().is_ok();
            if defaults.iter().any(|default| default.eq_ignore_ascii_case(value)) {
                Ok(Fate::Irrelevant { reason: "with this value, time is as without the flag" })
            } else if defaults.iter().all(|default| number(default)) && !number(value) {
                bad("a number")
            } else {
                Ok(Fate::Refused { reason: reason.to_string() })
            }
        }
    }
}

/// One model, named in one way.
fn check_models(written: &[Written]) -> Result<(), CommandError> {
    let by_position = written.iter().find(|written| written.identity == POSITION);
    let by_flag = written.iter().find(|written| written.identity == "--model");
    match (by_position, by_flag) {
        (None, None) => Err(CommandError::NoModel),
        (Some(model), Some(_)) => Err(CommandError::TwoModels(model.flag.text.clone())),
        _ => Ok(()),
    }
}

/// The flags, those written again later marked as having no effect.
fn last_wins(written: Vec<Written>) -> Vec<Flag> {
    let identities: Vec<String> = written.iter().map(|written| written.identity.clone()).collect();
    let flags = written.into_iter().enumerate().map(|(index, written)| {
        let overridden = identities[index + 1..].contains(&written.identity);
        let fate = if overridden {
            Fate::Irrelevant { reason: "overridden by a later one" }
        } else {
            written.flag.fate
        };
        Flag { text: written.flag.text, fate }
    });
    flags.collect()
}
