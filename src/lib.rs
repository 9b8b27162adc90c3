//! tailcast forecasts the tail latency of a fleet of vLLM replicas before anyone rents a GPU.

pub mod agenda;
pub mod cli;
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
