//! Requests drawn from parameters: arrivals, lengths, shared prefixes, sessions and classes, each from a stream of its
//! own, so that changing one redraws nothing else (law 8).
//!
//! - [`arrivals`]: when requests or sessions come
//! - [`classes`]: tenants and levels of service
//! - [`clients`]: a published mix of clients
//! - [`lengths`]: how long prompts and outputs are
//! - [`prefixes`]: what prompts have in common

use std::sync::Arc;

use rand::RngExt;

use super::Job;
use crate::random::{Purpose, Seed, Stream, mix};
use crate::request::{Content, ContentRun, Request, RequestId};
use crate::time::{Span, Time};
use crate::trace::{Wait, Waits};

pub mod arrivals;
pub mod classes;
pub mod clients;
pub mod lengths;
pub mod prefixes;
#[cfg(test)]
mod tests;

use arrivals::{ArrivalDraws, within};
pub use arrivals::{ArrivalProcess, Arrivals, Modulation, State, Think};
pub use classes::Class;
use classes::ClassDraws;
pub use clients::Clients;
use lengths::LengthDraws;
pub use lengths::Lengths;
use prefixes::PrefixDraws;
pub use prefixes::{Level, Prefixes};

/// A workload by its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// How many requests.
    pub requests: u32,
    /// What makes them come.
    pub demand: Demand,
    /// How long they are.
    pub tokens: Tokens,
    /// Shared prefixes, if any.
    pub prefixes: Option<Prefixes>,
    /// Classes of requests (or sessions); empty if all are alike.
    pub classes: Vec<Class>,
}

/// What makes requests come.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// They come whatever becomes of those before.
    Open(Arrivals),
    /// Sessions come; within one, each turn waits for the answer before.
    Sessions(Arrivals, Turns),
    /// Clients as they were published, lengths included.
    Clients(Arc<Clients>),
    /// So many users, each of whom sends again some time after his last answer.
    Users(u32, Think),
}

/// The turns of a session. Each prompt begins with all that was said before.
#[derive(Clone, Debug, PartialEq)]
pub struct Turns {
    /// How many a session has.
    pub count: Lengths,
    /// Between an answer and the next turn.
    pub think: Think,
    /// A session ends before its prompt would be longer.
    pub max_prompt_tokens: u32,
}

/// How long requests are.
#[derive(Clone, Debug, PartialEq)]
pub enum Tokens {
    /// Prompts and outputs apart.
    Apart {
        /// Prompts, shared prefixes not counted; of a session what each turn adds.
        prompt: Lengths,
        /// Outputs.
        output: Lengths,
    },
    /// As the clients have them.
    OfClients,
    /// Pairs as they were measured, so that long prompts keep the outputs that came with them.
    Pairs(Arc<[(u32, u32)]>),
}

impl Drawn {
    /// All requests. In open loops they are in order of sending; the first is sent one gap after the start.
    ///
    /// # Panics
    /// If the parameters have not been validated: a rate, a deviation or a range that cannot be.
    pub fn draw(&self, seed: Seed) -> Vec<Job> {
        let mut jobs = self.draw_alike(seed);
        classes::part_by_lora(&mut jobs, &self.classes);
        jobs
    }

    /// All requests, as if they asked for the same adapter.
    fn draw_alike(&self, seed: Seed) -> Vec<Job> {
        let mut draws = Draws {
            tokens: TokenDraws::new(&self.tokens, seed),
            prefixes: PrefixDraws::new(self.prefixes.as_ref(), seed),
            classes: ClassDraws::new(&self.classes, seed),
        };
        match &self.demand {
            Demand::Open(arrivals) => {
                let mut arrivals = ArrivalDraws::new(arrivals, seed);
                let one = |number| {
                    let sent = arrivals.next();
                    let opening = draws.prefixes.next();
                    let class = draws.classes.next();
                    let tokens = draws.tokens(class.0);
                    job(number, sent, &opening, None, tokens, class)
                };
                (0..self.requests).map(one).collect()
            }
            Demand::Clients(clients) => {
                let all = clients.draw(self.requests, seed).into_iter().zip(0..);
                let one = |((sent, prompt, output, client), number)| {
                    let opening = draws.prefixes.next();
                    let class = draws.classes.next();
                    Job {
                        session: Some(client),
                        ..job(number, sent, &opening, None, (prompt, output), class)
                    }
                };
                all.map(one).collect()
            }
            Demand::Sessions(arrivals, turns) => self.sessions(arrivals, turns, &mut draws, seed),
            Demand::Users(users, think) => self.users(*users, *think, &mut draws, seed),
        }
    }

    fn sessions(&self, arrivals: &Arrivals, turns: &Turns, draws: &mut Draws, seed: Seed) -> Vec<Job> {
        let mut arrivals = ArrivalDraws::new(arrivals, seed);
        let mut counts = LengthDraws::new(&turns.count, seed.stream(Purpose::Turns, 0));
        let mut jobs: Vec<Job> = Vec::with_capacity(self.requests as usize);
        let mut session = 0u64;
        while jobs.len() < self.requests as usize {
            let starts = arrivals.next();
            let opening = draws.prefixes.next();
            let shared: u32 = opening.iter().map(|run| run.tokens).sum();
            let class = draws.classes.next();
            let mut thinking = seed.stream(Purpose::ThinkTime, session);
            let text = own_text(session);
            // What was said so far behind the shared texts, questions and answers.
            let mut said = 0u32;
            for turn in 0..counts.next().max(1) {
                let (prompt, output) = draws.tokens(class.0);
                let think = turns.think.draw(&mut thinking);
                let asked = said.saturating_add(prompt);
                if jobs.len() == self.requests as usize
                    || turn > 0 && asked.saturating_add(shared) > turns.max_prompt_tokens
                {
                    break;
                }
                let number = jobs.len() as u32;
                let own = ContentRun { stream: text, position: 0, tokens: asked.saturating_add(output) };
                let mut job = job(number, starts, &opening, Some(own), (asked, output), class);
                if turn > 0 {
                    job.waits = Waits::of(vec![Wait { row: number - 1, think: Some(think) }]);
                }
                job.session = Some(session);
                jobs.push(job);
                said = asked.saturating_add(output);
            }
            session += 1;
        }
        jobs
    }

    fn users(&self, users: u32, think: Think, draws: &mut Draws, seed: Seed) -> Vec<Job> {
        let mut thinking: Vec<Stream> =
            (0..users).map(|user| seed.stream(Purpose::ThinkTime, u64::from(user))).collect();
        // Users do not begin as one: each starts somewhere within a pause, and they are numbered as they start.
        let started = |user: &mut Stream| {
            let pause = think.draw(user);
            within(pause, user)
        };
        let mut starts: Vec<Time> = thinking.iter_mut().take(self.requests as usize).map(started).collect();
        starts.sort_unstable();
        let one = |number: u32| {
            let user = number % users;
            let sent = starts.get(number as usize).copied().unwrap_or(Time::ZERO);
            let pause = if number < users { Span::ZERO } else { think.draw(&mut thinking[user as usize]) };
            let opening = draws.prefixes.next();
            let class = draws.classes.next();
            let tokens = draws.tokens(class.0);
            let mut job = job(number, sent, &opening, None, tokens, class);
            if number >= users {
                job.waits = Waits::of(vec![Wait { row: number - users, think: Some(pause) }]);
            }
            job.session = Some(u64::from(user));
            job
        };
        (0..self.requests).map(one).collect()
    }

    /// Mean arrivals a second before they are modulated; none for users, whose pace is the fleet's.
    pub fn rate_per_s(&self) -> Option<f64> {
        match &self.demand {
            Demand::Open(arrivals) | Demand::Sessions(arrivals, _) => Some(arrivals.rate_per_s),
            Demand::Clients(clients) => Some(clients.rate_per_s()),
            Demand::Users(..) => None,
        }
    }
}

struct Draws {
    tokens: TokenDraws,
    prefixes: PrefixDraws,
    classes: ClassDraws,
}

impl Draws {
    /// Lengths of the next request, which is of `class`. Both are drawn whether its class has its own or not, so that the
    /// others keep theirs.
    fn tokens(&mut self, class: u16) -> (u32, u32) {
        let common = self.tokens.next();
        self.classes.lengths(class, common)
    }
}

enum TokenDraws {
    OfClients,
    Apart(LengthDraws, LengthDraws),
    Pairs(Arc<[(u32, u32)]>, Stream),
}

impl TokenDraws {
    fn new(tokens: &Tokens, seed: Seed) -> TokenDraws {
        match tokens {
            Tokens::Apart { prompt, output } => TokenDraws::Apart(
                LengthDraws::new(prompt, seed.stream(Purpose::PromptTokens, 0)),
                LengthDraws::new(output, seed.stream(Purpose::OutputTokens, 0)),
            ),
            Tokens::OfClients => TokenDraws::OfClients,
            Tokens::Pairs(pairs) => TokenDraws::Pairs(pairs.clone(), seed.stream(Purpose::PairedLengths, 0)),
        }
    }

    fn next(&mut self) -> (u32, u32) {
        match self {
            TokenDraws::Apart(prompt, output) => (prompt.next(), output.next()),
            TokenDraws::OfClients => (1, 1),
            TokenDraws::Pairs(pairs, stream) => pairs[stream.random_range(0..pairs.len())],
        }
    }
}

/// The stream of all that is said in a session.
fn own_text(session: u64) -> u64 {
    mix(session ^ 0x7365_7373_696f_6e73) >> 1
}

fn job(
    number: u32,
    sent: Time,
    opening: &[ContentRun],
    own: Option<ContentRun>,
    (prompt_tokens, output_tokens): (u32, u32),
    (class, priority): (u16, i32),
) -> Job {
    let shared: u32 = opening.iter().map(|run| run.tokens).sum();
    Job {
        sent,
        request: Request {
            id: RequestId(number),
            prompt_tokens: prompt_tokens.saturating_add(shared),
            output_tokens,
            max_tokens: None,
            priority,
            attempt: 0,
            arrival_order: u64::from(number),
            content: Content::from_runs(opening.iter().copied().chain(own)),
            remote_tokens: 0,
        },
        session: None,
        class,
        waits: Waits::default(),
        predicted_output_tokens: None,
    }
}

/// Arrivals for requests or sessions that have none of their own: so many moments in order.
pub fn moments(arrivals: &Arrivals, count: usize, seed: Seed) -> Vec<Time> {
    let mut draws = ArrivalDraws::new(arrivals, seed.derive(Purpose::SessionStarts, 0));
    let first = draws.next();
    let mut moments = vec![Time::ZERO; count.min(1)];
    let after = |at: Time| Time::ZERO + Span::from_ps((at - first).as_ps());
    moments.extend((1..count).map(|_| after(draws.next())));
    moments
}
