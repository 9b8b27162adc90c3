//! ShareGPT conversations and the data sets that `vllm bench serve` reads (JSON, or JSON lines): texts without times.
//!
//! Knows how vLLM samples them: the first message is the prompt, the second the answer. Counts four characters a token,
//! rounded up (a rule of thumb for English), where a file does not give `prompt_tokens` and `output_tokens` itself. Does
//! not know any tokenizer: `trace hash` does.

use serde::Deserialize;

use super::TraceRow;
use super::content::text_id;
use super::error::TraceError;
use super::json;
use super::lines::{Lines, Opening};
use super::rows::{Next, NextRow, Recorded, Skip, document};

const CHARACTERS_PER_TOKEN: usize = 4;

#[derive(Deserialize)]
struct Conversation {
    id: Option<serde_json::Value>,
    #[serde(alias = "conversation")]
    conversations: Option<Vec<Message>>,
    messages: Option<Vec<Message>>,
    prompt: Option<Text>,
    #[serde(alias = "completion", alias = "response")]
    output: Option<Text>,
    #[serde(alias = "prompt_len")]
    prompt_tokens: Option<u32>,
    #[serde(alias = "output_len")]
    output_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(alias = "content")]
    value: Option<Text>,
}

/// Of a text only its length is kept.
struct Text {
    tokens: u32,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        struct Counted;
        impl serde::de::Visitor<'_> for Counted {
            type Value = Text;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a text")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text { tokens: text.chars().count().div_ceil(CHARACTERS_PER_TOKEN) as u32 })
            }
        }
        deserializer.deserialize_str(Counted)
    }
}

pub(super) fn recognises(opening: &Opening) -> bool {
    let has = |key: &str| opening.head.contains(&format!("\"{key}\""));
    let timeless = !has("arrived_s") && !has("timestamp") && !has("start_time");
    let first = has("conversations") || has("conversation") || has("messages") && !has("ts") && !has("time");
    timeless
        && (first
            || has("prompt")
                && (has("output")
                    || has("completion")
                    || has("response")
                    || has("output_tokens")
                    || has("output_len")))
}

pub(super) fn rows(lines: &mut Lines, opening: &Opening) -> Result<NextRow, TraceError> {
    if opening.first().starts_with('[') {
        let all: Vec<Conversation> = json::parse_document(lines)?;
        return Ok(document(all.iter().map(row).collect()));
    }
    Ok(Box::new(|lines| if lines.advance()? { Ok(row(&json::parse(lines)?)) } else { Ok(Next::End) }))
}

/// The first exchange; a conversation without one is passed over, as vLLM does.
fn row(conversation: &Conversation) -> Next {
    let messages = conversation.conversations.as_ref().or(conversation.messages.as_ref());
    let message = |index: usize| messages?.get(index)?.value.as_ref();
    let count = |given: Option<u32>, text: Option<&Text>| given.or(text.map(|text| text.tokens));
    let prompt = count(conversation.prompt_tokens, conversation.prompt.as_ref().or(message(0)));
    let output = count(conversation.output_tokens, conversation.output.as_ref().or(message(1)));
    let (Some(prompt_tokens), Some(output_tokens)) = (prompt, output) else {
        return Next::Skip(Skip::OtherKind);
    };
    let session = conversation.id.as_ref().map(|id| text_id(&id.to_string()));
    Next::Row(Recorded {
        arrived_ps: 0,
        row: TraceRow { session, ..TraceRow::of_lengths(prompt_tokens, output_tokens) },
    })
}
