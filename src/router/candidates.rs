//! Who may be chosen: the replicas that a gateway takes to be up.
//!
//! Knows their numbers. Does not know why the others are missing: health checks, ejection, drains and retries
//! that avoid a replica are the fleet's.

use std::sync::Arc;

use super::Server;

/// Replicas that a request may be sent to, in order of number. Never empty: where nobody is left, no policy is
/// asked.
#[derive(Clone, Debug)]
pub struct Candidates {
    servers: Arc<[Server]>,
    generation: u64,
}

impl Candidates {
    /// Every one of so many replicas.
    pub fn all(servers: usize) -> Candidates {
        Candidates { servers: (0..servers).collect(), generation: 0 }
    }

    /// These, in order of number. Two lists of one gateway that differ have different generations; 0 is that of
    /// all replicas.
    pub fn of(servers: impl IntoIterator<Item = Server>, generation: u64) -> Candidates {
        Candidates { servers: servers.into_iter().collect(), generation }
    }

    /// Each in turn.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Server> + Clone + '_ {
        self.servers.iter().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The one at this place of the list.
    ///
    /// # Panics
    /// If the list is shorter.
    pub fn at(&self, place: usize) -> Server {
        self.servers[place]
    }

    /// The place of a replica, or else where it would stand.
    pub fn place(&self, server: Server) -> Result<usize, usize> {
        // All of them, or all up to here, is the usual case.
        if self.servers.get(server) == Some(&server) {
            return Ok(server);
        }
        self.servers.binary_search(&server)
    }

    /// Whether a replica is among them.
    pub fn contains(&self, server: Server) -> bool {
        self.place(server).is_ok()
    }

    /// Changes whenever the list does.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}
