//! tailcast forecasts the tail latency of a fleet of vLLM replicas before anyone rents a GPU.
//!
//! ```text
//!             a trace, or parameters to draw from
//!                          |
//!                       workload            requests with their true lengths
//!                          |
//!   client ---> gateway ---+---> replica    inbox -> schedule() -> step -> output
//!               policy     |     replica    token budget, KV blocks, prefix cache
//!               view       |     replica    price of a step: host time, GPU time
//!                 ^        |        |
//!                 +--------+--------+       responses, polled gauges
//!                          |
//!               outcomes, runs of steps
//!                          |
//!              summary, ranking, intervals
//! ```
//!
//! **Replicas are passive.** A [`replica::Replica`] is one vLLM engine: requests are delivered to it, and it lives
//! up to a moment when somebody asks it to. It schedules as vLLM 0.24 does, block by block; [`verify`] holds it
//! against recordings of the real one. How long a step takes is the business of [`step_time`], and how many KV
//! blocks there are that of [`hardware`].
//!
//! **Gateways see what real ones see.** A [`router::Router`] gets a [`request::Arrival`] and a [`router::Glance`]:
//! its own counts, and gauges as old as the scenario says. The true output length is in neither.
//!
//! **The fleet moves time.** [`fleet::Fleet`] takes requests from a [`workload::Source`], lets the gateways decide,
//! and advances only the replicas that somebody looks at.
//!
//! **A study asks questions.** [`study::compare()`] runs several scenarios on the same requests and says which of
//! them differ; [`report`] shows it.
//!
//! Time is an integer ([`time`]), randomness a stream for each purpose ([`random`]), and the same scenario gives the
//! same bytes on any number of threads. `ARCHITECTURE.md` has the floors and the laws.

pub mod agenda;
pub mod autoscaler;
pub mod calibration;
pub mod cli;
mod compression;
pub mod explain;
pub mod fleet;
pub mod hardware;
pub mod metrics;
pub mod observe;
pub mod random;
pub mod replica;
pub mod report;
pub mod request;
pub mod router;
pub mod scenario;
pub mod signals;
pub mod step_time;
pub mod study;
pub mod time;
pub mod trace;
pub mod verify;
pub mod workload;

pub use fleet::{Fleet, FleetConfig};
pub use metrics::RunSummary;
pub use random::Seed;
pub use replica::{EngineConfig, Replica};
pub use request::{Arrival, Outcome, Request};
pub use router::{Decision, Glance, Router};
pub use scenario::{Loaded, Scenario};
pub use step_time::StepTime;
pub use study::compare;
pub use time::{Span, Time};
pub use workload::{Job, Source};
