//! Many runs, and what they say together.
//!
//! Knows repetitions, variants and their comparison. Does not know how results are shown.
//!
//! - [`mod@run`]: one scenario, one repetition
//! - `bad_day`, `scaling`, `cost`: what befell a run, what its autoscaler did, and what that cost
//! - [`batches`]: intervals from one long run
//! - [`mod@regret`]: each decision against the truth
//! - [`saturation`]: what the fleet can bear at most
//! - [`mod@capacity`]: the least fleet, or the highest rate, at which objectives hold
//! - [`mix`]: the cheapest mix of two kinds of replicas
//! - [`mod@compare`]: several scenarios on the same requests
//! - [`mod@load_curve`]: the same at other rates
//! - [`ranking`]: contenders in order, and what is real of it
//! - [`standing`]: where the fleet stands under the workload
//! - [`statistics`]: intervals over repetitions
//! - [`stability`]: whether the winner stays if step times are wrong
//! - [`sweep`]: a scenario at many settings
//! - [`mod@uncertainty`]: intervals over models drawn from a calibration

mod bad_day;
pub mod batches;
pub mod capacity;
pub mod compare;
mod cost;
pub mod load_curve;
pub mod mix;
pub mod ranking;
pub mod regret;
pub mod run;
pub mod saturation;
mod scaling;
pub mod stability;
pub mod standing;
pub mod statistics;
pub mod steady;
pub mod sweep;
pub mod uncertainty;

pub use compare::{Comparison, compare};
pub use run::{Keep, RunResult, StudyError, Traces};
