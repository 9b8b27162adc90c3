//! One replica's life again, alone: the same deliveries at the same moments, with every step looked at.
//!
//! A replica is a function of its own past, so this needs nobody else. On the way it answers two questions about requests that went
//! elsewhere: what of their prompts was cached here when they came, and when they would have ended here, all else being as it was.

use super::booking::{Booked, Booking};
use crate::fleet::{Delivery, End};
use crate::replica::{Input, Limit, Path, Replica};
use crate::request::RequestId;
use crate::router::{Facts, Server};
use crate::time::Time;

/// What a life tells.
pub(super) struct Life {
    pub(super) booked: Vec<Booked>,
    /// Requests that went elsewhere, with the prompt tokens that were cached here, where there were any.
    pub(super) cached: Vec<(RequestId, u32)>,
    /// Requests asked about that went elsewhere, with their end here; none if never.
    pub(super) ends: Vec<(RequestId, Option<Time>)>,
}

/// Lives through `deliveries`, all of the fleet in order of time. `asked` are the requests whose end is wanted wherever they went,
/// in order.
pub(super) fn live_again(
    server: Server,
    facts: &Facts,
    deliveries: &[(Server, &Delivery)],
    asked: &[RequestId],
    end: End,
) -> Life {
    let mut replica = Replica::on_path(facts.engine.clone(), facts.step_time.clone(), Path::Literal);
    let mut booking = Booking::new(facts);
    let (mut cached, mut ends) = (Vec::new(), Vec::new());
    for (place, (to, delivery)) in deliveries.iter().enumerate() {
        let Input::Add(request) = &delivery.input else { continue };
        replica.advance_recorded(Limit::Time(delivery.at), &mut booking);
        replica.take_events();
        if *to == server {
            if replica.admissible(request.prompt_tokens) {
                booking.delivered(request.id, delivery.at, replica.signals());
            }
            replica.deliver(delivery.at, delivery.order, delivery.input.clone());
            continue;
        }
        let found = replica.scheduler().cached_tokens(request.id, &request.content, request.prompt_tokens);
        if found > 0 {
            cached.push((request.id, found));
        }
        if asked.binary_search(&request.id).is_ok() {
            let mut other = replica.clone();
            let later = deliveries[place + 1..].iter().filter(|(to, _)| *to == server);
            for (_, given) in std::iter::once(&(*to, *delivery)).chain(later) {
                other.deliver(given.at, given.order, given.input.clone());
            }
            ends.push((request.id, other.end_of(request.id, Time::MAX)));
        }
    }
    let until = match end {
        End::Drain => Time::MAX,
        End::At(end) => end,
    };
    replica.advance_recorded(Limit::Time(until), &mut booking);
    Life { booked: booking.ended, cached, ends }
}
