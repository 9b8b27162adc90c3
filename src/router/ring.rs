//! A consistent-hash ring: every replica at many points, a key at the next point clockwise.
//!
//! Knows hashes. Does not know what a key stands for.

use super::{Candidates, Server};
use crate::random::mix;

/// Points of `servers` replicas.
#[derive(Clone, Debug)]
pub struct Ring {
    virtual_nodes: u32,
    servers: usize,
    points: Vec<(u64, Server)>,
    /// Whom the walk under way has met.
    met: Vec<bool>,
}

impl Ring {
    /// A ring with so many points a replica.
    pub fn new(virtual_nodes: u32) -> Ring {
        Ring { virtual_nodes, servers: 0, points: Vec::new(), met: Vec::new() }
    }

    fn lay_out(&mut self, servers: usize) {
        if self.servers != servers {
            self.servers = servers;
            let of = |server: Server| {
                (0..self.virtual_nodes)
                    .map(move |node| (mix(mix(server as u64 + 1) ^ u64::from(node)), server))
            };
            self.points = (0..servers).flat_map(of).collect();
            self.points.sort_unstable();
        }
    }

    /// The first candidate clockwise from the key on, on a ring of `servers`. Who is missing keeps its points, so
    /// that only its own keys move.
    pub fn first(&mut self, key: u64, servers: usize, among: &Candidates) -> Server {
        self.lay_out(servers);
        let first = self.points.partition_point(|(at, _)| *at < mix(key));
        let mut clockwise = self.points[first..].iter().chain(&self.points[..first]);
        clockwise.find(|(_, server)| among.contains(*server)).map_or(among.at(0), |(_, server)| *server)
    }

    /// Candidates clockwise from the key on, each once.
    pub fn walk<'a>(
        &'a mut self,
        key: u64,
        servers: usize,
        among: &'a Candidates,
    ) -> impl Iterator<Item = Server> + 'a {
        self.lay_out(servers);
        let first = self.points.partition_point(|(at, _)| *at < mix(key));
        let met = &mut self.met;
        met.clear();
        met.extend((0..servers).map(|server| !among.contains(server)));
        let clockwise = self.points[first..].iter().chain(&self.points[..first]);
        clockwise.map(|(_, server)| *server).filter(|&server| !std::mem::replace(&mut met[server], true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_where_they_were_when_a_replica_comes() {
        let (mut eight, mut nine) = (Ring::new(160), Ring::new(160));
        let all = Candidates::all;
        let mut counts = [0u32; 8];
        let mut moved = 0;
        for key in 0..9_000 {
            let (before, after) = (eight.first(key, 8, &all(8)), nine.first(key, 9, &all(9)));
            counts[before] += 1;
            // Who moves, moves to the newcomer.
            assert!(after == before || after == 8);
            moved += u32::from(after == 8);
        }
        assert!(counts.iter().all(|count| (800..1_500).contains(count)), "{counts:?}");
        assert!((700..1_300).contains(&moved), "{moved}");
        let mut walked: Vec<Server> = eight.walk(5, 8, &all(8)).collect();
        walked.sort_unstable();
        assert_eq!(walked, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn only_the_keys_of_who_is_missing_move() {
        let mut ring = Ring::new(160);
        let without = Candidates::of((0..8).filter(|server| *server != 3), 1);
        for key in 0..2_000 {
            let (before, after) = (ring.first(key, 8, &Candidates::all(8)), ring.first(key, 8, &without));
            assert!(after != 3 && (after == before || before == 3));
            assert_eq!(ring.walk(key, 8, &without).next(), Some(after));
            assert_eq!(ring.walk(key, 8, &without).count(), 7);
        }
    }
}
