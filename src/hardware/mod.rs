//! Hardware: GPUs and models from the catalogue, and what follows from them (weights, KV bytes, blocks).
//!
//! Knows facts (data files beside this one, each row with its source), vLLM's defaults and how vLLM resolves the
//! number of KV-cache blocks; rules of thumb of start-up and power. Does not know how long a step takes
//! ([`crate::step_time`]), nor what is scheduled.

pub mod catalogue;
pub mod coefficients;
pub mod config_json;
pub mod defaults;
pub mod gpus;
pub mod memory;
pub mod models;
pub mod power;
pub mod start_up;

pub use catalogue::CatalogueError;
pub use config_json::ConfigError;
pub use defaults::{Deployment, Placement};
pub use gpus::{Gpu, gpu, gpus};
pub use memory::{CannotStart, KvCapacity};
pub use models::{Model, model, models};
