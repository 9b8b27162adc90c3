//! What was seen, and what it means.
//!
//! Knows outcomes and runs of steps, and turns them into quantiles, rates and verdicts on objectives. Does
//! not know how they came about. Definitions are those of vLLM's own benchmark.

mod aftermath;
mod bad_day;
mod class;
mod cost;
mod crowd;
pub mod distribution;
pub mod histogram;
pub mod lane;
pub mod quantile;
mod scaling;
pub mod summary;
pub mod windows;

pub use aftermath::{Aftermath, aftermath};
pub use bad_day::{BadDay, IncidentSummary};
pub use class::ClassSummary;
pub use cost::Cost;
pub use distribution::{Distribution, Distributions};
pub use histogram::Histogram;
pub use lane::{LaneStats, TimelinePoint};
pub use quantile::{Quantiles, Sample};
pub use scaling::{Scaling, ScalingChange};
pub use summary::{Collector, Objectives, ReplicaSummary, RunSummary};
pub use windows::{Window, Windows, windows};
