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
        ("agentic-sample/session-1.json", agentic(1, &mut Draws::new(101))),
        ("agentic-sample/session-2.json", agentic(2, &mut Draws::new(102))),
        ("agentic-sample/session-3.json", agentic(3, &mut Draws::new(103))),
        ("gateway-log-sample.csv", gateway_log(&mut Draws::new(7))),
        ("servegen-sample/chunk-0-trace.csv", servegen_windows(&[1.0, 4.0, 2.0, 0.0], "Gamma", "0.25")),
        ("servegen-sample/chunk-0-dataset.json", servegen_lengths(900, 120)),
        ("servegen-sample/chunk-1-trace.csv", servegen_windows(&[0.5, 0.5, 3.0, 3.0], "Weibull", "0.7")),
        ("servegen-sample/chunk-1-dataset.json", servegen_lengths(4_000, 40)),
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

/// A session of a coding agent: a prompt that grows by what was said and read, a subagent in its middle, and a context
/// that is made short again.
fn agentic(session: u64, draws: &mut Draws) -> String {
    let mut next_id = 0u64;
    let mut blocks: Vec<u64> = Vec::new();
    let mut grow = |blocks: &mut Vec<u64>, tokens: u64| {
        while (blocks.len() as u64) * 64 + 64 <= tokens {
            next_id += 1;
            blocks.push(next_id);
        }
    };
    let mut tokens = 9_000 + draws.below(2_000);
    let mut at_ms = 0;
    let mut requests = Vec::new();
    for turn in 0..14u64 {
        if turn == 9 {
            // The context is made short: what stays is the beginning.
            blocks.truncate(120);
            tokens = 120 * 64 + 500;
        }
        grow(&mut blocks, tokens);
        let output = draws.tokens(40, 4);
        let (api_ms, think_ms) = (800 + output * 12, 300 + draws.below(9_000));
        let think =
            if turn == 0 { String::new() } else { format!(", \"think_time\": {}", decimals(think_ms)) };
        at_ms += if turn == 0 { 0 } else { think_ms };
        let ids: Vec<String> = blocks.iter().map(u64::to_string).collect();
        requests.push(format!(
            "{{\"t\": {}, \"type\": \"s\", \"model\": \"sample\", \"in\": {tokens}, \"out\": {output}, \"hash_ids\": [{}], \
             \"api_time\": {}{think}}}",
            decimals(at_ms),
            ids.join(", "),
            decimals(api_ms)
        ));
        at_ms += api_ms;
        if turn == 5 {
            let (first, second) = (3_000 + draws.below(500), 3_600 + draws.below(500));
            let mut own = Vec::new();
            let mut nested = Vec::new();
            for (place, tokens) in [first, second].into_iter().enumerate() {
                grow(&mut own, tokens);
                let ids: Vec<String> = own.iter().map(u64::to_string).collect();
                let think = if place == 0 { "" } else { ", \"think_time\": 0.4" };
                nested.push(format!(
                    "{{\"t\": {}, \"type\": \"s\", \"model\": \"sample\", \"in\": {tokens}, \"out\": 60, \"hash_ids\": [{}], \
                     \"api_time\": 1.6{think}}}",
                    if place == 0 { "0.0" } else { "2.0" },
                    ids.join(", ")
                ));
            }
            requests.push(format!(
                "{{\"t\": {}, \"type\": \"subagent\", \"agent_id\": \"a\", \"duration_ms\": 3600, \"status\": \"completed\", \
                 \"requests\": [{}]}}",
                decimals(at_ms),
                nested.join(", ")
            ));
            at_ms += 3_600;
        }
        tokens += output + draws.tokens(100, 5);
    }
    format!(
        "{{\"id\": \"sample-{session}\", \"models\": [\"sample\"], \"block_size\": 64, \"hash_id_scope\": \"local\", \
         \"requests\": [\n{}\n]}}\n",
        requests.join(",\n")
    )
}

/// Milliseconds as decimal seconds.
fn decimals(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

/// A log as a gateway of one's own might write it: other names, times as dates, two models, a status.
fn gateway_log(draws: &mut Draws) -> String {
    let mut text = "time,model,status,user,usage_in,usage_out\n".to_owned();
    let mut us = 32_400_000_000;
    for _ in 0..400 {
        let model = if draws.below(4) == 0 { "embedder" } else { "llama" };
        let status = if draws.below(25) == 0 { "503" } else { "200" };
        let (user, prompt, output) = (draws.below(40), draws.tokens(64, 6), draws.tokens(8, 6));
        let _ = writeln!(
            text,
            "2026-01-31T{}.{:03}Z,{model},{status},user-{user},{prompt},{output}",
            clock(us),
            us / 1_000 % 1_000
        );
        us += draws.gap_us() / 4;
    }
    text
}

/// Windows of ten minutes with these rates.
fn servegen_windows(rates: &[f64], distribution: &str, shape: &str) -> String {
    let mut text = String::new();
    for (window, rate) in rates.iter().enumerate() {
        let (distribution, shape) = if *rate > 0.0 { (distribution, shape) } else { ("", "0") };
        let _ = write!(text, "{},{rate},2,{distribution},{shape},1\r\n", window * 600);
    }
    text
}

fn servegen_lengths(input: u32, output: u32) -> String {
    format!(
        "{{\"0\": {{\"input_tokens\": \"{{{}: 0.5, {input}: 0.4, {}: 0.1}}\", \"output_tokens\": \"{{{}: 0.7, {output}: 0.3}}\"}}}}\n",
        input / 3,
        input * 3,
        output / 2
    )
}
