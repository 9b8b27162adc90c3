//! A run over time: percentiles by window, how fast objectives use up what they allow, and how long it took to recover.
//!
//! Knows outcomes by the time at which they were sent. Does not know replicas or policies.

use std::ops::Range;

use serde::Serialize;

use super::Objectives;
use crate::request::Outcome;
use crate::time::{Span, Time};

/// Windows of a run, unless their length is given: about so many.
const WINDOWS: u64 = 60;
/// Requests of a window, unless its length is given: about so many at least, or one that misses its limit is more than the share
/// that an objective allows.
const REQUESTS: f64 = 150.0;
/// Windows of a run at most, whatever their length.
const MOST_WINDOWS: u64 = 100_000;
/// Share of requests that a P99 objective allows to miss its limit.
const ALLOWED_SHARE: f64 = 0.01;
/// A percentile is told where at least so many requests lie beyond it.
const FEWEST_BEYOND: f64 = 1.0;
/// A window is part of a spike from so many times the mean rate on, if chance does not explain it (three standard deviations).
const SPIKE: f64 = 1.5;

/// Requests sent in one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize)]
pub struct Window {
    /// Where it begins, seconds since the run began.
    pub from_s: f64,
    /// Where it ends.
    pub to_s: f64,
    /// Requests sent.
    pub offered: u64,
    /// Of these, those that got no whole answer: their latency is infinite.
    pub without_answer: u64,
    /// Requests sent a second.
    pub offered_requests_per_s: f64,
    /// Median of the end-to-end latency of all offered; infinite is null in JSON; absent where too few were sent.
    pub e2e_p50_ms: Option<f64>,
    /// 90th percentile.
    pub e2e_p90_ms: Option<f64>,
    /// 99th percentile.
    pub e2e_p99_ms: Option<f64>,
    /// Median of the time to first token of those that had one.
    pub ttft_p50_ms: Option<f64>,
    /// 90th percentile.
    pub ttft_p90_ms: Option<f64>,
    /// 99th percentile.
    pub ttft_p99_ms: Option<f64>,
    /// Share of requests that missed a limit; absent without limits or requests.
    pub missed_share: Option<f64>,
    /// That share over the hundredth that a P99 objective allows: above 1 the objective is being missed.
    pub burn_rate: Option<f64>,
}

/// A stretch of windows in which objectives were missed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Episode {
    /// Where it begins, seconds since the run began.
    pub from_s: f64,
    /// Where it ends; the run's end if it was never over.
    pub to_s: f64,
    /// Whether it was over before the last window.
    pub recovered: bool,
    /// Requests sent in it that missed a limit.
    pub missed: u64,
    /// The highest burn rate of a window.
    pub worst_burn_rate: f64,
    /// The highest rate of requests in a window of it, over the run's mean.
    pub peak_over_mean: f64,
    /// From the end of the spike in it, or just before it, to its own end; absent where there was no spike or no recovery.
    pub recovery_s: Option<f64>,
}

/// A run over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Windows {
    /// Length of a window, seconds.
    pub length_s: f64,
    /// Windows in order; the last ends with the last request, and is half as long to half as much longer.
    pub windows: Vec<Window>,
    /// When objectives were missed; empty without limits.
    pub episodes: Vec<Episode>,
}

/// What requests sent within `counted` were by time. `limits` are those of a good request, if any is set.
pub fn windows(
    outcomes: &[Outcome],
    counted: &Range<Time>,
    length: Option<Span>,
    limits: Option<Objectives>,
) -> Windows {
    let mut sent: Vec<&Outcome> = outcomes.iter().filter(|outcome| counted.contains(&outcome.sent)).collect();
    sent.sort_by_key(|outcome| (outcome.sent, outcome.attempt));
    let Some(last) = sent.last().map(|outcome| outcome.sent) else {
        return Windows {
            length_s: length.map_or(0.0, Span::as_s),
            windows: Vec::new(),
            episodes: Vec::new(),
        };
    };
    let whole = last - counted.start;
    let shortest = Span::from_ps(whole.as_ps() / MOST_WINDOWS + 1);
    let length = length.unwrap_or_else(|| nice(whole, sent.len())).max(shortest);
    let count = ((whole.as_ps() + length.as_ps() / 2) / length.as_ps()).max(1);
    let mut rest = &sent[..];
    let mut windows = Vec::with_capacity(count as usize);
    for index in 0..count {
        let from = counted.start + length * index;
        let (to, own) = match index + 1 < count {
            true => (from + length, rest.partition_point(|outcome| outcome.sent < from + length)),
            // Requests that were all sent at one moment have no rate, but a window.
            false => (if last > from { last } else { from + length }, rest.len()),
        };
        windows.push(window(&rest[..own], from, to, limits.as_ref()));
        rest = &rest[own..];
    }
    let mean_rate = sent.len() as f64 / whole.max(Span::from_ps(1)).as_s();
    Windows { length_s: length.as_s(), episodes: episodes(&windows, mean_rate), windows }
}

/// A length of 1, 2 or 5 times a power of ten seconds, at least one, so that no more than [`WINDOWS`] fit, each with [`REQUESTS`].
fn nice(whole: Span, requests: usize) -> Span {
    let least_s = (whole.as_s() / WINDOWS as f64).max(whole.as_s() * REQUESTS / requests as f64);
    let powers = (0..10).flat_map(|power| [1, 2, 5].map(|digit| digit * 10u64.pow(power)));
    let length_s = powers.into_iter().find(|&length_s| length_s as f64 >= least_s);
    Span::from_s(length_s.unwrap_or(5_000_000_000))
}

fn window(sent: &[&Outcome], from: Time, to: Time, limits: Option<&Objectives>) -> Window {
    let sorted = |of: fn(&Outcome) -> Option<Span>| {
        let mut values: Vec<Span> = sent.iter().filter_map(|outcome| of(outcome)).collect();
        values.sort_unstable();
        values
    };
    let (e2e, ttft) = (sorted(Outcome::e2e), sorted(Outcome::ttft));
    let of_all = |percent: f64| percentile_ms(&e2e, sent.len(), percent);
    let of_first = |percent: f64| percentile_ms(&ttft, ttft.len(), percent);
    let offered = sent.len() as u64;
    let missed = |limits: &Objectives| sent.iter().filter(|outcome| !limits.met_by(outcome)).count();
    let missed_share = limits.filter(|_| offered > 0).map(|limits| missed(limits) as f64 / offered as f64);
    Window {
        from_s: from.as_s(),
        to_s: to.as_s(),
        offered,
        without_answer: offered - e2e.len() as u64,
        offered_requests_per_s: offered as f64 / (to - from).as_s(),
        e2e_p50_ms: of_all(50.0),
        e2e_p90_ms: of_all(90.0),
        e2e_p99_ms: of_all(99.0),
        ttft_p50_ms: of_first(50.0),
        ttft_p90_ms: of_first(90.0),
        ttft_p99_ms: of_first(99.0),
        missed_share,
        burn_rate: missed_share.map(|share| share / ALLOWED_SHARE),
    }
}

/// Linear between ranks, as everywhere, among `count` values of which those that are not in `sorted` are infinite; none where too few lie
/// beyond it.
fn percentile_ms(sorted: &[Span], count: usize, percent: f64) -> Option<f64> {
    if (count as f64) * (1.0 - percent / 100.0) < FEWEST_BEYOND - 1e-9 {
        return None;
    }
    let place = (count as f64 - 1.0) * percent / 100.0;
    let at = |rank: f64| sorted.get(rank as usize).map_or(f64::INFINITY, |span| span.as_ms());
    let (low, part) = (at(place.floor()), place.fract());
    // Weights, not a difference: infinite less infinite is nothing.
    Some(if part > 0.0 { low * (1.0 - part) + at(place.ceil()) * part } else { low })
}

/// Stretches of windows that burn; a window without requests neither begins nor ends one.
fn episodes(windows: &[Window], mean_rate: f64) -> Vec<Episode> {
    let burns = |window: &Window| window.burn_rate.is_some_and(|rate| rate > 1.0);
    let is_spike = |window: &Window| {
        let length_s = window.to_s - window.from_s;
        let expected = mean_rate * length_s;
        window.offered_requests_per_s >= SPIKE * mean_rate
            && window.offered as f64 >= expected + 3.0 * expected.sqrt()
    };
    let mut episodes = Vec::new();
    let mut from = 0;
    while let Some(begin) = (from..windows.len()).find(|&place| burns(&windows[place])) {
        let over =
            (begin..windows.len()).find(|&place| windows[place].offered > 0 && !burns(&windows[place]));
        let end = over.unwrap_or(windows.len());
        // Empty windows in front of its end are not part of it.
        let last = (begin..end).rfind(|&place| burns(&windows[place])).unwrap_or(begin);
        let of = &windows[begin..=last];
        let spike = (begin.saturating_sub(1)..=last).rfind(|&place| is_spike(&windows[place]));
        let to_s = of[of.len() - 1].to_s;
        episodes.push(Episode {
            from_s: of[0].from_s,
            to_s,
            recovered: over.is_some(),
            missed: of
                .iter()
                .map(|w| (w.missed_share.unwrap_or(0.0) * w.offered as f64).round() as u64)
                .sum(),
            worst_burn_rate: of.iter().filter_map(|window| window.burn_rate).fold(0.0, f64::max),
            peak_over_mean: of.iter().map(|w| w.offered_requests_per_s).fold(0.0, f64::max) / mean_rate,
            recovery_s: spike.filter(|_| over.is_some()).map(|place| to_s - windows[place].to_s),
        });
        from = end;
    }
    episodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Attempt, EngineOutcome, Finish, Ledger, RequestId};

    fn outcome(number: u32, sent_ms: u64, took_ms: u64) -> Outcome {
        let at = |ms| Time::ZERO + Span::from_ms(ms);
        Outcome {
            attempt: Attempt { request: RequestId(number), number: 0 },
            replica: Some(0),
            class: 0,
            sent: at(sent_ms),
            prompt_tokens: 10,
            arrived: Some(at(sent_ms)),
            first_token_received: Some(at(sent_ms + took_ms)),
            done_received: at(sent_ms + took_ms),
            engine: Some(EngineOutcome {
                id: RequestId(number),
                attempt: 0,
                queued: at(sent_ms),
                scheduled: Some(at(sent_ms)),
                first_token: Some(at(sent_ms + took_ms)),
                done: at(sent_ms + took_ms),
                output_tokens: 1,
                cached_tokens: 0,
                preemptions: 0,
                decode_parts: Ledger::default(),
                finish: Finish::Stop,
            }),
            finish: Finish::Stop,
            detour: None,
        }
    }

    /// 10 requests a second for 60 s, 40 a second from 20 s to 25 s; whoever is sent from 21 s to 32 s takes a second, the others
    /// 100 ms.
    fn spike() -> Vec<Outcome> {
        let calm = (0..600).map(|k| k * 100);
        let more = (0..150).map(|k| 20_000 + k * 5_000 / 150);
        let mut sent: Vec<u64> = calm.chain(more).collect();
        sent.sort_unstable();
        let took = |ms: u64| if (21_000..32_000).contains(&ms) { 1_000 } else { 100 };
        sent.iter().enumerate().map(|(number, &ms)| outcome(number as u32, ms, took(ms))).collect()
    }

    #[test]
    fn a_spike_burns_and_is_recovered_from() {
        let limits = Objectives { ttft: Some(Span::from_ms(500)), ..Objectives::default() };
        let all = Time::ZERO..Time::MAX;
        let told = windows(&spike(), &all, Some(Span::from_s(1)), Some(limits));
        assert_eq!((told.length_s, told.windows.len()), (1.0, 60));
        // 750 requests in a minute: windows of 20 s hold 150 each.
        assert_eq!(windows(&spike(), &all, None, None).length_s, 20.0);
        let [episode] = told.episodes[..] else { panic!("{:?}", told.episodes) };
        assert_eq!((episode.from_s, episode.to_s, episode.recovered), (21.0, 32.0, true));
        // The spike was over at 25 s.
        assert_eq!(episode.recovery_s, Some(7.0));
        assert_eq!(episode.missed, 4 * 40 + 7 * 10);
        assert!((episode.worst_burn_rate - 100.0).abs() < 1e-9);
        assert!((episode.peak_over_mean - 40.0 / (750.0 / 59.9)).abs() < 1e-9);
        // Ten requests have a median and a P90, but no P99.
        assert_eq!(told.windows[0].e2e_p90_ms, Some(100.0));
        assert_eq!(told.windows[0].e2e_p99_ms, None);
    }

    #[test]
    fn what_never_ends_is_infinite_and_never_recovered() {
        let mut outcomes = spike();
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.sent.as_s() >= 50.0) {
            outcome.finish = Finish::Unfinished;
        }
        let limits = Objectives { e2e: Some(Span::from_ms(2_000)), ..Objectives::default() };
        let told = windows(&outcomes, &(Time::ZERO..Time::MAX), Some(Span::from_s(10)), Some(limits));
        assert_eq!(told.windows.len(), 6);
        assert_eq!(told.windows[5].e2e_p99_ms, Some(f64::INFINITY));
        assert_eq!(told.windows[5].without_answer, 100);
        let [episode] = told.episodes[..] else { panic!("{:?}", told.episodes) };
        assert_eq!((episode.recovered, episode.recovery_s), (false, None));
        // The warm-up is left out.
        let later = Time::ZERO + Span::from_s(40)..Time::MAX;
        assert_eq!(windows(&outcomes, &later, Some(Span::from_s(10)), None).windows.len(), 2);
    }
}
