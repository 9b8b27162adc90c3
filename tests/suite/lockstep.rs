//! Engines that step together: laws against an engine that steps alone.

use std::sync::Arc;

use tailcast::observe::Silence;
use tailcast::replica::lockstep::Lockstep;
use tailcast::replica::{EngineConfig, EngineEvent, Input, Limit, Replica};
use tailcast::request::{Content, EngineOutcome, Request, RequestId};
use tailcast::step_time::StepTime;
use tailcast::step_time::affine::Affine;
use tailcast::time::{Span, Time};

fn config(num_gpu_blocks: u32, async_scheduling: bool) -> EngineConfig {
    EngineConfig { async_scheduling, ..EngineConfig::plain(num_gpu_blocks, 256, 8, 600) }
}

fn step_time(host_us: u64) -> Arc<dyn StepTime> {
    Arc::new(Affine {
        base: Span::from_ms(5),
        per_token: Span::from_us(30),
        per_context_token: Span::from_ns(25),
        host: Span::from_us(host_us),
    })
}

/// Bursts with pauses between them, long enough that engines run dry.
fn requests(count: u32) -> Vec<(Time, Request)> {
    (0..count)
        .map(|index| {
            let ms = 2_000 * u64::from(index / 20) + 17 * u64::from(index % 20);
            let at = Time::ZERO + Span::from_ms(ms);
            let request = Request {
                id: RequestId(index),
                prompt_tokens: 20 + index * 37 % 300,
                output_tokens: 1 + index * 13 % 70,
                max_tokens: None,
                priority: 0,
                attempt: 0,
                arrival_order: at.as_ps(),
                content: Content::default(),
                remote_tokens: 0,
            };
            (at, request)
        })
        .collect()
}

fn ended(events: impl Iterator<Item = EngineEvent>) -> Vec<EngineOutcome> {
    let mut outcomes: Vec<EngineOutcome> = events
        .filter_map(|event| match event {
            EngineEvent::Ended(outcome) => Some(outcome),
            EngineEvent::FirstToken { .. } => None,
        })
        .collect();
    outcomes.sort_by_key(|outcome| outcome.id);
    outcomes
}

/// All of `requests` to every one of so many engines, advanced to each of `stops` and then to the end.
fn together(
    engines: u32,
    config: &EngineConfig,
    host_us: u64,
    requests: &[(Time, Request)],
    stops: &[Time],
) -> Vec<Vec<EngineOutcome>> {
    let mut lockstep = Lockstep::new(config, &step_time(host_us), engines);
    let mut rest = requests;
    for stop in stops.iter().copied().chain([Time::MAX]) {
        let due = rest.partition_point(|(at, _)| *at < stop);
        for (index, (at, request)) in rest[..due].iter().enumerate() {
            for rank in 0..engines as usize {
                lockstep.deliver(rank, *at, index as u64, Input::Add(request.clone()));
            }
        }
        rest = &rest[due..];
        lockstep.advance(stop);
    }
    (0..engines as usize).map(|rank| ended(lockstep.take_events(rank))).collect()
}

fn alone(config: &EngineConfig, host_us: u64, requests: &[(Time, Request)]) -> Vec<EngineOutcome> {
    let mut replica = Replica::new(config.clone(), step_time(host_us));
    for (index, (at, request)) in requests.iter().enumerate() {
        replica.deliver(*at, index as u64, Input::Add(request.clone()));
    }
    replica.advance(Limit::Time(Time::MAX), &mut Silence);
    ended(replica.take_events())
}

/// Every engine that steps with its equals lives as if alone: at ease and preempting, in both modes, bound by the
/// graphics card and by the host.
#[test]
fn equals_in_step_live_as_one_alone() {
    let requests = requests(60);
    for (blocks, asynchronous, host_us) in
        [(400, true, 600), (45, true, 600), (400, false, 600), (45, false, 600), (400, true, 30_000)]
    {
        let config = config(blocks, asynchronous);
        let one = alone(&config, host_us, &requests);
        assert_eq!(one.len(), 60);
        for engines in [1, 3] {
            for outcomes in together(engines, &config, host_us, &requests, &[]) {
                assert!(
                    outcomes == one,
                    "{engines} engines, {blocks} blocks, asynchronous {asynchronous}, {host_us} us"
                );
            }
        }
    }
}

/// Law 12: going there in many goes is the same.
#[test]
fn stops_on_the_way_change_nothing() {
    let requests = requests(60);
    let config = config(45, true);
    let at_once = together(2, &config, 600, &requests, &[]);
    let stops: Vec<Time> = (1..2_000).map(|step| Time::ZERO + Span::from_us(3_333) * step).collect();
    assert!(together(2, &config, 600, &requests, &stops) == at_once);
}

/// An engine without work keeps step: a request that comes to it in the middle of the other's step waits for its end.
#[test]
fn an_idle_engine_joins_between_steps() {
    let config = config(400, true);
    let request = |id: u32, prompt_tokens| Request {
        id: RequestId(id),
        prompt_tokens,
        output_tokens: 4,
        max_tokens: None,
        priority: 0,
        attempt: 0,
        arrival_order: 0,
        content: Content::default(),
        remote_tokens: 0,
    };
    let mut lockstep = Lockstep::new(&config, &step_time(600), 2);
    lockstep.deliver(0, Time::ZERO, 0, Input::Add(request(0, 200)));
    // The first step takes 600 us of host and 11.005 ms of card.
    let at = Time::ZERO + Span::from_ms(3);
    lockstep.deliver(1, at, 1, Input::Add(request(1, 50)));
    lockstep.advance(Time::MAX);
    let first = ended(lockstep.take_events(0));
    let second = ended(lockstep.take_events(1));
    assert_eq!(second[0].scheduled, first[0].first_token, "not before the common step has ended");
    // From there on both have every step in common.
    assert!(second[0].done > first[0].done);
}
