//! Showing: results to bytes. One format, one file.
//!
//! Knows how a comparison is written. Does not know how it came about, nor where the bytes go.

mod bad_day;
pub mod capacity;
pub mod csv;
pub mod explanation;
pub mod figures;
pub mod html;
pub mod json;
pub mod over_time;
pub mod parquet;
pub mod perfetto;
pub mod plots;
pub mod prometheus;
pub mod regret;
mod scaling;
pub mod sweep;
pub mod table;
pub mod text;
mod verdict;
