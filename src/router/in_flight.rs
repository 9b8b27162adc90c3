//! Requests in flight by a gateway's own count, and who has fewest.
//!
//! Knows what it was told of sends and ends. Finds the fewest among n replicas by looking at log n of them.

use super::{Candidates, Server, Ties};
use crate::random::{Purpose, Seed, Stream};

use rand::RngExt;

/// A count for each replica, and a rule for equals.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// A binary tree in level order, replicas at its leaves: each node holds the fewest below it, and how many
    /// replicas have so few.
    nodes: Vec<Fewest>,
    leaves: usize,
    /// Of each replica, whoever may be chosen.
    counts: Vec<u32>,
    /// Who stands in the tree, by the generation of their list.
    generation: u64,
    ties: Ties,
    stream: Stream,
    last: Option<Server>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fewest {
    requests: u32,
    replicas: u32,
}

/// Below a node without a replica.
const NOBODY: Fewest = Fewest { requests: u32::MAX, replicas: 0 };

impl Fewest {
    fn of(left: Fewest, right: Fewest) -> Fewest {
        match left.requests.cmp(&right.requests) {
            std::cmp::Ordering::Less => left,
            std::cmp::Ordering::Greater => right,
            std::cmp::Ordering::Equal => Fewest { replicas: left.replicas + right.replicas, ..left },
        }
    }
}

impl InFlight {
    /// The counts of gateway `gateway`, all zero.
    pub fn new(ties: Ties, seed: Seed, gateway: u64) -> InFlight {
        let stream = seed.stream(Purpose::Routing, gateway);
        InFlight { nodes: Vec::new(), leaves: 0, counts: Vec::new(), generation: 0, ties, stream, last: None }
    }

    /// The candidate with the fewest among `servers` replicas, equals by rule.
    ///
    /// # Panics
    /// If there is none, or the replicas have become others.
    pub fn fewest(&mut self, servers: usize, among: &Candidates) -> Server {
        self.grow(servers);
        if self.generation != among.generation() {
            self.generation = among.generation();
            self.seat(among);
        }
        let equals = self.nodes[1].replicas;
        let place = match self.ties {
            Ties::First => 0,
            Ties::Random if equals == 1 => 0,
            Ties::Random => self.stream.random_range(0..equals as usize) as u32,
            Ties::Rotating => {
                let seen = self.last.map_or(0, |last| self.equals_up_to(last));
                if seen < equals { seen } else { 0 }
            }
        };
        let chosen = self.nth(place);
        self.last = Some(chosen);
        chosen
    }

    /// A request was sent there.
    pub fn sent(&mut self, server: Server) {
        self.change(server, |requests| requests + 1);
    }

    /// The end of a request was heard.
    pub fn ended(&mut self, server: Server) {
        self.change(server, |requests| requests - 1);
    }

    /// There are so many replicas.
    pub fn grow(&mut self, servers: usize) {
        if self.leaves > 0 {
            return;
        }
        self.leaves = servers.next_power_of_two();
        self.nodes = vec![NOBODY; 2 * self.leaves];
        self.counts = vec![0; servers];
        self.seat(&Candidates::all(servers));
    }

    /// These stand in the tree, and nobody else. Lists that follow each other differ by few, and only those are moved.
    fn seat(&mut self, among: &Candidates) {
        let mut candidates = among.iter().peekable();
        for server in 0..self.counts.len() {
            let is_one = candidates.next_if_eq(&server).is_some();
            if is_one != (self.nodes[self.leaves + server] != NOBODY) {
                let own = Fewest { requests: self.counts[server], replicas: 1 };
                self.put(server, if is_one { own } else { NOBODY });
            }
        }
    }

    fn change(&mut self, server: Server, to: impl Fn(u32) -> u32) {
        self.counts[server] = to(self.counts[server]);
        if self.nodes[self.leaves + server] != NOBODY {
            self.put(server, Fewest { requests: self.counts[server], replicas: 1 });
        }
    }

    fn put(&mut self, server: Server, own: Fewest) {
        let mut node = self.leaves + server;
        self.nodes[node] = own;
        while node > 1 {
            node /= 2;
            self.nodes[node] = Fewest::of(self.nodes[2 * node], self.nodes[2 * node + 1]);
        }
    }

    /// The replica number `place` among those with the fewest.
    fn nth(&self, mut place: u32) -> Server {
        let fewest = self.nodes[1].requests;
        let mut node = 1;
        while node < self.leaves {
            node *= 2;
            let left = self.nodes[node];
            let here = if left.requests == fewest { left.replicas } else { 0 };
            if place >= here {
                place -= here;
                node += 1;
            }
        }
        node - self.leaves
    }

    /// How many of those with the fewest are `server` or come before it.
    fn equals_up_to(&self, server: Server) -> u32 {
        let fewest = self.nodes[1].requests;
        let among = |node: Fewest| if node.requests == fewest { node.replicas } else { 0 };
        let mut node = self.leaves + server;
        let mut count = among(self.nodes[node]);
        while node > 1 {
            if node % 2 == 1 {
                count += among(self.nodes[node - 1]);
            }
            node /= 2;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Picker;
    use super::*;

    proptest! {
        /// The judge looks at every replica.
        #[test]
        fn it_picks_as_a_look_at_all_would(
            servers in 1usize..40, deeds in prop::collection::vec(any::<(u8, usize)>(), 0..200), seed in any::<u64>(),
        ) {
            for ties in [Ties::First, Ties::Random, Ties::Rotating] {
                let mut fast = InFlight::new(ties, Seed(seed), 0);
                let mut judge = Picker::new(ties, Seed(seed), 0);
                let mut counts = vec![0u32; servers];
                let mut among = Candidates::all(servers);
                for (generation, &(deed, server)) in deeds.iter().enumerate() {
                    let server = server % servers;
                    if deed < 20 {
                        // Somebody goes or comes, but the last.
                        let there = among.contains(server);
                        let others = (0..servers).filter(|other| (*other == server) != among.contains(*other));
                        let others: Vec<Server> = others.collect();
                        if !there || !others.is_empty() {
                            among = Candidates::of(others, generation as u64 + 1);
                        }
                        continue;
                    }
                    if deed < 140 && counts[server] > 0 {
                        counts[server] -= 1;
                        fast.ended(server);
                        continue;
                    }
                    let chosen = fast.fewest(servers, &among);
                    prop_assert_eq!(chosen, judge.least(among.iter().map(|server| (server, counts[server]))));
                    counts[chosen] += 1;
                    fast.sent(chosen);
                }
            }
        }
    }
}
