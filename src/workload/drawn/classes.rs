//! Classes of requests: tenants, or levels of service, each with a share, a priority and, if it likes, lengths of its own.
//!
//! Knows what a request's class changes about it. Does not know objectives: who looks at results does.

use rand::RngExt;

use super::lengths::{LengthDraws, Lengths};
use crate::random::{Purpose, Seed, Stream, mix};
use crate::request::{Content, ContentRun};
use crate::workload::Job;

/// A class of requests (or, where sessions are drawn, of sessions).
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// What results call it.
    pub name: String,
    /// How often it comes, relative to the others.
    pub share: f64,
    /// Lower is more urgent.
    pub priority: i32,
    /// Its own prompt lengths; those of the workload unless given.
    pub prompt: Option<Lengths>,
    /// Its own output lengths; those of the workload unless given.
    pub output: Option<Lengths>,
    /// The adapter it asks for: texts computed under one are found by requests for the same one only.
    pub lora: Option<String>,
}

/// Keeps apart what prompts for different adapters have in common, as vLLM does: the adapter's name is part of every
/// block's key.
pub(super) fn part_by_lora(jobs: &mut [Job], classes: &[Class]) {
    // FNV-1a, mixed: stable between versions and machines, as draws must be.
    let hash = |name: &String| {
        let bytes = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        mix(bytes)
    };
    let adapters: Vec<Option<u64>> = classes.iter().map(|class| class.lora.as_ref().map(hash)).collect();
    for job in jobs {
        if let Some(Some(adapter)) = adapters.get(usize::from(job.class)) {
            let own = |run: &ContentRun| ContentRun { stream: mix(run.stream ^ adapter) >> 1, ..*run };
            job.request.content = Content::from_runs(job.request.content.runs().iter().map(own));
        }
    }
}

/// Draws a class, and the lengths that classes have of their own: each from a stream of its own, so that changing one
/// class redraws nothing of another.
pub(super) struct ClassDraws {
    priorities: Vec<i32>,
    /// Shares summed up.
    shares: Vec<f64>,
    own: Vec<(Option<LengthDraws>, Option<LengthDraws>)>,
    stream: Stream,
}

impl ClassDraws {
    pub(super) fn new(classes: &[Class], seed: Seed) -> ClassDraws {
        let mut sum = 0.0;
        let summed = |class: &Class| {
            sum += class.share;
            sum
        };
        let shares = classes.iter().map(summed).collect();
        let own = |(class, index): (&Class, u64)| {
            let of = |lengths: &Option<Lengths>, purpose| {
                lengths.as_ref().map(|lengths| LengthDraws::new(lengths, seed.stream(purpose, index)))
            };
            (of(&class.prompt, Purpose::PromptTokens), of(&class.output, Purpose::OutputTokens))
        };
        ClassDraws {
            priorities: classes.iter().map(|class| class.priority).collect(),
            shares,
            // Number 0 is the workload's own.
            own: classes.iter().zip(1..).map(own).collect(),
            stream: seed.stream(Purpose::Classes, 0),
        }
    }

    /// The next class and its priority; number 0 of priority 0 where there are none.
    pub(super) fn next(&mut self) -> (u16, i32) {
        let Some(total) = self.shares.last() else { return (0, 0) };
        let at = self.stream.random::<f64>() * total;
        let class = self.shares.partition_point(|sum| *sum <= at).min(self.shares.len() - 1);
        (class as u16, self.priorities[class])
    }

    /// These lengths, or in their place what `class` has of its own.
    pub(super) fn lengths(&mut self, class: u16, (prompt, output): (u32, u32)) -> (u32, u32) {
        let Some((own_prompt, own_output)) = self.own.get_mut(usize::from(class)) else {
            return (prompt, output);
        };
        (
            own_prompt.as_mut().map_or(prompt, LengthDraws::next),
            own_output.as_mut().map_or(output, LengthDraws::next),
        )
    }
}
