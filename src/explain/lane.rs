//! One replica's life again, alone: the same deliveries at the same moments, with every step looked at.
//!
//! A replica is a function of its own past, so this needs nobody else. On the way it answers two questions about requests that went
//! elsewhere: what of their prompts was cached here when they came, and when they would have ended here, all else being as it was.

use super::booking::{Booked, Booking};
use crate::fleet::{Delivery, End};
use crate::random::Seed;
use crate::replica::{Control, Input, Limit, Path};
use crate::request::{Attempt, Request, RequestId};
use crate::router::{Facts, Server};
use crate::time::Time;

/// What a life tells.
pub(super) struct Life {
    pub(super) booked: Vec<Booked>,
    /// Tries that went elsewhere, with the prompt tokens that were cached here, where there were any.
    pub(super) cached: Vec<(Attempt, u32)>,
    /// Tries asked about that went elsewhere, with their end here; none if never.
    pub(super) ends: Vec<(Attempt, Option<Time>)>,
}

/// Lives through `deliveries`, all of the fleet in order of time. `asked` are the tries whose end is wanted wherever they went, in
/// order.
pub(super) fn live_again(
    server: Server,
    facts: &Facts,
    deliveries: &[(Server, &Delivery)],
    asked: &[Attempt],
    (end, seed): (End, Seed),
) -> Life {
    let mut replica = facts.replica(server, seed, Path::Literal);
    let mut booking = Booking::new(facts, facts.jitter(server, seed));
    let (mut cached, mut ends) = (Vec::new(), Vec::new());
    for (place, (to, delivery)) in deliveries.iter().enumerate() {
        // What befalls somebody else, or is taken back there, changes nothing here.
        if *to != server && !matches!(delivery.input, Input::Add(_)) {
            continue;
        }
        replica.advance_recorded(Limit::Time(delivery.at), &mut booking);
        replica.take_events();
        if *to == server {
            match &delivery.input {
                Input::Add(request) if replica.is_up() && replica.admissible(request.prompt_tokens) => {
                    booking.delivered((request.id, request.attempt), delivery.at, replica.signals());
                }
                Input::Control(Control::Pace { per_mille }) => booking.paced(delivery.at, *per_mille),
                _ => {}
            }
            replica.deliver(delivery.at, delivery.order, delivery.input.clone());
            continue;
        }
        let Input::Add(request) = &delivery.input else { continue };
        let attempt = Attempt { request: request.id.original(), number: request.attempt };
        if !replica.is_up() {
            ends.extend(asked.binary_search(&attempt).is_ok().then_some((attempt, None)));
            continue;
        }
        let found = replica.scheduler().cached_tokens(request.id, &request.content, request.prompt_tokens);
        if found > 0 {
            cached.push((attempt, found));
        }
        if asked.binary_search(&attempt).is_ok() {
            let mut other = replica.clone();
            let later = deliveries[place + 1..].iter().filter(|(to, _)| *to == server);
            // Where another try of it comes or came, this one needs a number that nobody has.
            let is_it = |(to, other): &(Server, &Delivery)| {
                *to == server && matches!(&other.input, Input::Add(other) if other.id == request.id)
            };
            let id = if deliveries.iter().any(is_it) { RequestId(u32::MAX) } else { request.id };
            other.deliver(delivery.at, delivery.order, Input::Add(Request { id, ..request.clone() }));
            for (_, given) in later {
                other.deliver(given.at, given.order, given.input.clone());
            }
            ends.push((attempt, other.end_of(id, Time::MAX)));
        }
    }
    let until = match end {
        End::Drain => Time::MAX,
        End::At(end) => end,
    };
    replica.advance_recorded(Limit::Time(until), &mut booking);
    Life { booked: booking.ended, cached, ends }
}
