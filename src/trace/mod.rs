//! Traces: bytes to requests. One format, one file.
//!
//! Knows files, compression and columns. Does not know replicas or rates.
