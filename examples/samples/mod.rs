//! Small synthetic traces, one for each format.
//!
//! Knows how each format is written. Draws with integers only, from a named generator, so that every
//! machine writes the same bytes.

use std::fmt::Write;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Name and text of each sample.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    vec![
        ("azure-2023-sample.csv", azure_2023(&mut Draws::new(2023))),
        ("azure-2024-sample.csv", azure_2024(&mut Draws::new(2024))),
        ("mooncake-sample.jsonl", mooncake(&mut Draws::new(512))),
        ("plain-sample.csv", plain_csv(&mut Draws::new(1))),
        ("plain-sample.jsonl", plain_jsonl(&mut Draws::new(2))),
    ]
}

struct Draws(Xoshiro256PlusPlus);

impl Draws {
    fn new(seed: u64) -> Draws {
        Draws(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end)
    }

    /// A gap of a process without memory, in microseconds, 1 s in the mean.
    fn gap_us(&mut self) -> u64 {
        let mut gap = self.below(10_000) + 1;
        while self.below(100) != 0 {
            gap += 10_000;
        }
        gap
    }

    /// A length with a long tail: each doubling of `least`, up to `doublings`, is as likely as the next.
    fn tokens(&mut self, least: u64, doublings: u64) -> u64 {
        let scale = least << self.below(doublings);
        scale + self.below(scale)
    }
}

/// The time of day `us` microseconds after midnight, without the fraction.
fn clock(us: u64) -> String {
    let seconds = us / 1_000_000;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

// Writing to a string cannot fail, hence the results that are dropped below.

fn azure_2023(draws: &mut Draws) -> String {
    let mut text = "TIMESTAMP,ContextTokens,GeneratedTokens".to_owned();
    let mut us = 36_000_000_000;
    for _ in 0..600 {
        let (prompt, output) = (draws.tokens(64, 6), draws.tokens(8, 6));
        let _ = write!(text, "\r\n2023-11-16 {}.{:06}0,{prompt},{output}", clock(us), us % 1_000_000);
        us += draws.gap_us();
    }
    text
}

fn azure_2024(draws: &mut Draws) -> String {
    let mut text = "TIMESTAMP,ContextTokens,GeneratedTokens\n".to_owned();
    let mut us: u64 = 9_930;
    for row in 0..300 {
        let (prompt, output) = (draws.tokens(64, 6), draws.tokens(8, 6));
        // A whole second, as the published trace has one now and then, is written without a fraction.
        us = if row % 50 == 49 { us.next_multiple_of(1_000_000) } else { us };
        let fraction =
            if us.is_multiple_of(1_000_000) { String::new() } else { format!(".{:06}", us % 1_000_000) };
        let _ = writeln!(text, "2024-05-10 {}{fraction}+00:00,{prompt},{output}", clock(us));
        us += draws.gap_us();
    }
    text
}

/// A conversation whose prompts grow: each holds all turns before it.
struct Conversation {
    number: u64,
    prompt: u64,
    ids: Vec<u64>,
}

/// Conversations that take turns, their prompts cut into blocks of `block` tokens.
struct Conversations {
    block: u64,
    open: Vec<Conversation>,
    begun: u64,
    next_id: u64,
}

impl Conversations {
    fn new(block: u64) -> Conversations {
        // Id 0 is the first block of the system prompt, which all share.
        Conversations { block, open: Vec::new(), begun: 0, next_id: 1 }
    }

    /// The next turn of a new or an open conversation, which asks `question` more tokens: its number, prompt
    /// length and ids.
    fn turn(&mut self, draws: &mut Draws, question: u64) -> (u64, u64, &[u64]) {
        let new = self.open.is_empty() || draws.below(3) == 0;
        if new {
            let system_prompt = Conversation { number: self.begun, prompt: self.block, ids: vec![0] };
            self.begun += 1;
            self.open.push(system_prompt);
            if self.open.len() > 8 {
                self.open.remove(0);
            }
        }
        let place = if new { self.open.len() - 1 } else { draws.below(self.open.len() as u64) as usize };
        let conversation = &mut self.open[place];
        // A block that was not full stands for other tokens now, so it takes a new id.
        conversation.ids.truncate((conversation.prompt / self.block) as usize);
        conversation.prompt += question;
        while (conversation.ids.len() as u64) < conversation.prompt.div_ceil(self.block) {
            conversation.ids.push(self.next_id);
            self.next_id += 1;
        }
        (conversation.number, conversation.prompt, &conversation.ids)
    }
}

fn list(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn mooncake(draws: &mut Draws) -> String {
    let mut text = String::new();
    let mut conversations = Conversations::new(512);
    let mut ms: u64 = 0;
    for _ in 0..200 {
        let (question, output) = (draws.tokens(256, 5), draws.tokens(16, 6));
        let (_, prompt, ids) = conversations.turn(draws, question);
        let _ = writeln!(
            text,
            "{{\"timestamp\": {ms}, \"input_length\": {prompt}, \"output_length\": {output}, \"hash_ids\": [{}]}}",
            list(ids)
        );
        // Times lie on a grid of 3 s and are a millisecond early now and then, as in the published trace.
        if draws.below(4) == 0 {
            ms = ms.next_multiple_of(3_000) + 3_000 - u64::from(draws.below(10) == 0);
        }
    }
    text
}

fn plain_csv(draws: &mut Draws) -> String {
    let mut text =
        "arrived_s,prompt_tokens,output_tokens,max_tokens,session,priority,prefix,prefix_tokens\n".to_owned();
    let mut us = 0;
    for _ in 0..200 {
        let prefix = draws.below(8);
        // The same prefix has the same length each time.
        let prefix_tokens = 256 + 64 * prefix;
        let (prompt, output) = (prefix_tokens + draws.tokens(32, 6), draws.tokens(8, 6));
        let limit = if draws.below(2) == 0 { "1024" } else { "" };
        let (session, priority) = (draws.below(60), draws.below(2));
        let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
        let _ = writeln!(
            text,
            "{seconds}.{fraction:06},{prompt},{output},{limit},{session},{priority},{prefix},{prefix_tokens}"
        );
        us += draws.gap_us();
    }
    text
}

fn plain_jsonl(draws: &mut Draws) -> String {
    let mut text = String::new();
    let mut conversations = Conversations::new(64);
    let mut us = 0;
    for _ in 0..100 {
        let (question, output) = (draws.tokens(32, 5), draws.tokens(8, 6));
        let (session, prompt, ids) = conversations.turn(draws, question);
        let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
        let _ = writeln!(
            text,
            "{{\"arrived_s\": {seconds}.{fraction:06}, \"prompt_tokens\": {prompt}, \"output_tokens\": {output}, \
             \"session\": {session}, \"blocks\": {{\"tokens\": 64, \"ids\": [{}]}}}}",
            list(ids)
        );
        us += draws.gap_us();
    }
    text
}
