//! The model against recordings of the real thing.
//!
//! - [`schedule`]: the scheduler, field by field; `recording` is its format
//! - [`steps`]: single operators, by their times
//! - [`latency`]: whole servers, by what their requests waited; `measured` is the format, `server` says which engine
//!   was measured, `front_end` shares requests out among its ranks
//! - [`fleet`]: routed fleets, by what their gateway ([`gateway`]) or their histograms ([`prometheus`]) show

pub mod fleet;
pub mod front_end;
pub mod gateway;
pub mod latency;
pub mod measured;
pub mod prometheus;
pub mod recording;
pub mod schedule;
pub mod server;
pub mod steps;
