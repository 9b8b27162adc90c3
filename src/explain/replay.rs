//! Every replica's life again, with somebody beside each who sees all its steps.

use rayon::prelude::*;

use crate::fleet::Delivery;
use crate::observe::Observer;
use crate::replica::{Limit, Replica};
use crate::scenario::Scenario;
use crate::time::Time;

/// Lives through what each replica was given, up to `until`: the replicas then, with their observers.
pub fn replay<O: Observer + Send>(
    scenario: &Scenario,
    deliveries: &[Vec<Delivery>],
    until: Time,
    observer: impl Fn() -> O + Sync,
) -> Vec<(Replica, O)> {
    let kinds: Vec<_> = scenario.each_lane().collect();
    let one = |(kind, given): (&&crate::scenario::ReplicaKind, &Vec<Delivery>)| {
        let facts = &kind.facts;
        let (mut replica, mut observer) =
            (Replica::new(facts.engine.clone(), facts.step_time.clone()), observer());
        for delivery in given.iter().filter(|delivery| delivery.at <= until) {
            replica.deliver(delivery.at, delivery.order, delivery.input.clone());
        }
        replica.advance(Limit::Time(until), &mut observer);
        (replica, observer)
    };
    kinds.par_iter().zip(deliveries).map(one).collect()
}
