//! All integration tests, in one binary.

mod accuracy;
mod allocations;
mod backtest;
mod bad_days;
mod calibration;
mod cli;
mod clients;
mod coverage;
mod decisions;
mod explanations;
mod exports;
mod fleets;
mod gateways;
mod golden;
mod incidents;
mod jumps;
mod kv_events;
mod laws;
mod lockstep;
mod queues;
mod random_engine;
mod scaling;
mod scenarios;
mod shared;
mod storms;
mod tidy;
