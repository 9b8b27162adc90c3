//! The model against recordings of the real thing.

pub mod recording;
pub mod schedule;
