//! Every replica's life again, with somebody beside each who sees all its steps.

use rayon::prelude::*;

use crate::fleet::Delivery;
use crate::observe::Observer;
use crate::replica::{Limit, Path, Replica};
use crate::scenario::Scenario;
use crate::study::run::repetition_seed;
use crate::time::Time;

/// Lives through what each replica was given, up to `until`: the replicas then, with their observers.
pub fn replay<O: Observer + Send>(
    scenario: &Scenario,
    deliveries: &[Vec<Delivery>],
    until: Time,
    observer: impl Fn() -> O + Sync,
) -> Vec<(Replica, O)> {
    let kinds: Vec<_> = scenario.each_lane().collect();
    let seed = repetition_seed(scenario, 0);
    let one = |(server, (kind, given)): (usize, (&&crate::scenario::ReplicaKind, &Vec<Delivery>))| {
        let (mut replica, mut observer) = (kind.facts.replica(server, seed, Path::Fast), observer());
        for delivery in given.iter().filter(|delivery| delivery.at <= until) {
            replica.deliver(delivery.at, delivery.order, delivery.input.clone());
        }
        replica.advance(Limit::Time(until), &mut observer);
        (replica, observer)
    };
    kinds.par_iter().zip(deliveries).enumerate().map(one).collect()
}
