//! A trace as a workload.
