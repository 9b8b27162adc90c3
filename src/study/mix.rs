//! The cheapest mix of two kinds of replicas that holds objectives.
//!
//! Knows what each kind costs and how many it takes alone. For a number of the first kind it seeks the least number of the second, among
//! those alone that would be cheaper than what is known; numbers of the first are tried far apart, then closer and closer around the best.

use super::capacity::{Capacity, Objective, Search, Size, Verdict};
use super::run::{StudyError, Traces};
use super::saturation::saturation_requests_per_s;
use crate::scenario::{ReplicaKind, Scenario};

/// Numbers of the first kind that are tried at first, between none and as many as it takes alone.
const FIRST_TRIES: u32 = 8;

/// Two kinds, and what is known of each.
struct Pair<'a> {
    kinds: [&'a ReplicaKind; 2],
    usd_per_hour: [f64; 2],
    /// Requests a second that one replica bears.
    bears: [Option<f64>; 2],
    down: u32,
}

impl Pair<'_> {
    fn usd(&self, counts: [u32; 2]) -> f64 {
        (0..2).map(|kind| f64::from(counts[kind]) * self.usd_per_hour[kind]).sum()
    }

    /// What is left of a mix when the strongest are down.
    fn serving(&self, counts: [u32; 2]) -> [u32; 2] {
        let mut left = counts;
        for _ in 0..self.down {
            let strongest = if self.bears[0] >= self.bears[1] { 0 } else { 1 };
            let one = if left[strongest] > 0 { strongest } else { 1 - strongest };
            left[one] = left[one].saturating_sub(1);
        }
        left
    }
}

/// How many replicas of a kind objectives take alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alone {
    /// So many, or as many as are searched where none will do.
    pub replicas: u32,
    /// Whether they hold.
    pub holds: bool,
}

/// Searches mixes of the two kinds of `scenario`; `alone` says what is known of each. None where a price is not known. The answer is absent where no mix is cheaper than the cheaper of the two alone.
///
/// # Errors
/// If a run cannot be made.
///
/// # Panics
/// If there are not two kinds.
pub fn cheapest_mix(
    scenario: &Scenario,
    traces: &mut Traces,
    alone: [Alone; 2],
    down: u32,
    objectives: &[Objective],
    confidence: f64,
    ran: &(dyn Fn() + Sync),
) -> Result<Option<Capacity>, StudyError> {
    let [first, second] = &scenario.replicas[..] else { panic!("a mix is of two kinds") };
    let (Some(first_usd), Some(second_usd)) = (first.usd_per_hour(), second.usd_per_hour()) else {
        return Ok(None);
    };
    let mut search = Search::new(scenario, traces, objectives, confidence, ran);
    let requests = search.draw(scenario)?;
    let bears = |kind: &ReplicaKind| {
        let mut one = scenario.clone();
        one.replicas = vec![ReplicaKind { count: 1, ..kind.clone() }];
        saturation_requests_per_s(&one, &requests[0])
    };
    let pair = Pair {
        kinds: [first, second],
        usd_per_hour: [first_usd, second_usd],
        bears: [bears(first)?, bears(second)?],
        down,
    };
    let holds = |search: &mut Search<'_>, counts: [u32; 2]| -> Result<bool, StudyError> {
        if let Some(known) = search.walked.iter().find(|point| point.counts == counts) {
            return Ok(known.verdict == Verdict::Holds);
        }
        let serving = pair.serving(counts);
        let mut sized = scenario.clone();
        let kinds = pair.kinds.iter().zip(serving).filter(|(_, count)| *count > 0);
        sized.replicas = kinds.map(|(kind, count)| ReplicaKind { count, ..(*kind).clone() }).collect();
        let bears = |kind: usize| pair.bears[kind].map(|bears| bears * f64::from(serving[kind]));
        let size = Size {
            counts: counts.to_vec(),
            bears: bears(0).zip(bears(1)).map(|(first, second)| first + second),
            rate_factor: 1.0,
            usd_per_hour: Some(pair.usd(counts)),
        };
        let point = search.point(&sized, size, &requests)?;
        let holds = point.verdict == Verdict::Holds;
        search.walked.push(point);
        Ok(holds)
    };
    // The least of the second kind beside `count` of the first, if that is cheaper than what is known.
    let usd_alone = |kind: usize, counts| if alone[kind].holds { pair.usd(counts) } else { f64::INFINITY };
    let alone_usd = usd_alone(0, [alone[0].replicas, 0]).min(usd_alone(1, [0, alone[1].replicas]));
    let most = alone.map(|alone| alone.replicas);
    let try_beside = |search: &mut Search<'_>, best: &mut Option<[u32; 2]>, count: u32| {
        let best_usd = best.map_or(alone_usd, |counts| pair.usd(counts));
        let affordable = ((best_usd - pair.usd([count, 0])) / pair.usd_per_hour[1]).ceil() - 1.0;
        let mut yes = (affordable.max(0.0) as u32).min(most[1]);
        if yes == 0 || !holds(search, [count, yes])? {
            return Ok(());
        }
        let mut no = 0;
        while yes - no > 1 {
            let middle = u32::midpoint(no, yes);
            if holds(search, [count, middle])? { yes = middle } else { no = middle }
        }
        *best = Some([count, yes]);
        Ok::<(), StudyError>(())
    };
    let mut best = None;
    // As many of the first kind as would still be cheaper with one of the second.
    let affordable = ((alone_usd - pair.usd_per_hour[1]) / pair.usd_per_hour[0]).max(0.0) as u32;
    let end = most[0].min(affordable.saturating_add(1));
    let mut step = end.div_ceil(FIRST_TRIES).max(1);
    let mut tried: Vec<u32> = (1..FIRST_TRIES).map(|k| k * step).filter(|count| *count < end).collect();
    for &count in &tried {
        try_beside(&mut search, &mut best, count)?;
    }
    while step > 1 {
        step = step.div_ceil(2);
        // Around the best so far, or around every try where no mix is cheaper yet.
        let centres = best.map_or_else(|| tried.clone(), |counts: [u32; 2]| vec![counts[0]]);
        let mut around: Vec<u32> = centres
            .iter()
            .flat_map(|centre| [centre.saturating_sub(step), centre + step])
            .filter(|count| (1..end).contains(count) && !tried.contains(count))
            .collect();
        around.sort_unstable();
        around.dedup();
        for &count in &around {
            try_beside(&mut search, &mut best, count)?;
        }
        tried.extend(around);
    }
    let mut walked = search.walked;
    walked.sort_by(|a, b| a.counts.cmp(&b.counts));
    Ok(Some(Capacity {
        policy: scenario.router.policy.clone(),
        kind: format!("{} and {}", first.name, second.name),
        is_mix: true,
        answer: best.and_then(|counts| walked.iter().find(|point| point.counts == counts).cloned()),
        ends_the_range: false,
        walked,
    }))
}
