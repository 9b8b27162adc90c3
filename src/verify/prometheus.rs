//! Latency histograms as a vLLM server shows them on `/metrics` (Prometheus' text format).
//!
//! Knows the lines of the three request histograms and their bounds. Does not know what is behind them.

use std::collections::BTreeMap;
use std::path::Path;

use super::measured::MeasuredError;

/// The histograms that are read, with the latency each is of.
pub const METRICS: [(&str, &str); 3] = [
    ("vllm:time_to_first_token_seconds", "TTFT"),
    ("vllm:request_time_per_output_token_seconds", "TPOT"),
    ("vllm:e2e_request_latency_seconds", "E2E"),
];

/// Counts of one latency, by upper bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Upper bounds in seconds, rising, the last infinite, each with the count at or below it.
    pub cumulative: Vec<(f64, f64)>,
    /// Sum of all values, seconds, where it was shown.
    pub sum_s: Option<f64>,
}

impl Buckets {
    /// How many values.
    pub fn count(&self) -> f64 {
        self.cumulative.last().map_or(0.0, |(_, count)| *count)
    }

    /// The bounds in seconds between which the share `p` of the values ends; none without values.
    pub fn bounds(&self, p: f64) -> Option<(f64, f64)> {
        let rank = p * self.count();
        let index = self.cumulative.iter().position(|(_, count)| *count >= rank && *count > 0.0)?;
        let low = if index == 0 { 0.0 } else { self.cumulative[index - 1].0 };
        Some((low, self.cumulative[index].0))
    }
}

/// The histograms of one server, by metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    /// The server: the file's name, with the engine where a file shows several.
    pub server: String,
    /// By the metric's name.
    pub histograms: BTreeMap<&'static str, Buckets>,
}

/// Reads a saved `/metrics` page: one scrape for each engine in it.
///
/// # Errors
/// If it cannot be read, holds none of the histograms, or one whose counts fall.
pub fn read(path: &Path) -> Result<Vec<Scrape>, MeasuredError> {
    let text = std::fs::read_to_string(path).map_err(|error| MeasuredError::of(path, error))?;
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut scrapes: BTreeMap<String, BTreeMap<&'static str, Buckets>> = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let at = |reason: String| MeasuredError::at(path, index + 1, reason);
        let Some((metric, part, labels, value)) = sample(line).map_err(at)? else { continue };
        let engine = label(labels, "engine").unwrap_or_default();
        let buckets = scrapes.entry(engine.to_owned()).or_default().entry(metric).or_default();
        match part {
            "_bucket" => {
                let bound = label(labels, "le").ok_or_else(|| at("a bucket has a label le".into()))?;
                let bound: f64 = match bound {
                    "+Inf" => f64::INFINITY,
                    bound => {
                        bound.parse().map_err(|_| at(format!("le: expected a number, got {bound:?}")))?
                    }
                };
                // Lines of several models or finish reasons of one engine add up.
                match buckets.cumulative.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, count)) => *count += value,
                    None => buckets.cumulative.push((bound, value)),
                }
            }
            "_sum" => buckets.sum_s = Some(buckets.sum_s.unwrap_or(0.0) + value),
            _ => {}
        }
    }
    if scrapes.is_empty() {
        let names: Vec<&str> = METRICS.iter().map(|(name, _)| *name).collect();
        let reason = format!("holds no histogram of a vLLM server: expected {}", names.join("_bucket, "));
        return Err(MeasuredError::of(path, reason + "_bucket"));
    }
    let several = scrapes.len() > 1;
    let mut found = Vec::new();
    for (engine, mut histograms) in scrapes {
        for (metric, buckets) in &mut histograms {
            buckets.cumulative.sort_by(|a, b| a.0.total_cmp(&b.0));
            let rising = buckets.cumulative.is_sorted_by_key(|(_, count)| *count);
            let whole = buckets.cumulative.last().is_some_and(|(bound, _)| bound.is_infinite());
            if !rising || !whole {
                let reason = format!("{metric}: expected counts that rise up to le=\"+Inf\"");
                return Err(MeasuredError::of(path, reason));
            }
        }
        let server = if several { format!("{file} engine {engine}") } else { file.clone() };
        found.push(Scrape { server, histograms });
    }
    Ok(found)
}

/// Metric, part, labels and value of a line that belongs to one of the histograms.
type Sample<'a> = (&'static str, &'a str, &'a str, f64);

fn sample(line: &str) -> Result<Option<Sample<'_>>, String> {
    let found = METRICS.iter().find_map(|(name, _)| Some((*name, line.strip_prefix(name)?)));
    let Some((metric, rest)) = found else { return Ok(None) };
    let expected = || format!("expected {metric}_bucket{{...}} NUMBER");
    let (part, labels, value) = match rest.split_once('{') {
        Some((part, rest)) => {
            let (labels, value) = rest.rsplit_once('}').ok_or_else(expected)?;
            (part, labels, value)
        }
        None => {
            let (part, value) = rest.split_once(' ').ok_or_else(expected)?;
            (part, "", value)
        }
    };
    let value = value.split_whitespace().next().and_then(|value| value.parse().ok());
    let value: f64 = value.filter(|value: &f64| *value >= 0.0).ok_or_else(expected)?;
    Ok(["_bucket", "_sum", "_count"].contains(&part).then_some((metric, part, labels, value)))
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 30.5
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 50.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5",model_name="m"} 90.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 100.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 100.0
vllm:num_requests_running{engine="0",model_name="m"} 3.0
"#;

    fn read_text(text: &str) -> Result<Vec<Scrape>, String> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.prom");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "FOLDER"))
    }

    #[test]
    fn a_page_is_read() {
        let scrapes = read_text(PAGE).unwrap();
        assert_eq!((scrapes.len(), scrapes[0].server.as_str()), (1, "a.prom"));
        let ttft = &scrapes[0].histograms["vllm:time_to_first_token_seconds"];
        assert_eq!((ttft.count(), ttft.sum_s), (100.0, Some(30.5)));
        assert_eq!(ttft.bounds(0.5), Some((0.0, 0.1)));
        assert_eq!(ttft.bounds(0.51), Some((0.1, 0.5)));
        assert_eq!(ttft.bounds(0.99), Some((0.5, f64::INFINITY)));
        let two = PAGE.to_owned() + &*PAGE.replace("engine=\"0\"", "engine=\"1\"");
        let names: Vec<String> = read_text(&two).unwrap().into_iter().map(|scrape| scrape.server).collect();
        assert_eq!(names, ["a.prom engine 0", "a.prom engine 1"]);
    }

    #[test]
    fn what_is_no_histogram_is_said() {
        assert!(read_text("up 1\n").unwrap_err().contains("holds no histogram of a vLLM server"));
        let text = read_text(&PAGE.replace("} 90.0", "} 20.0")).unwrap_err();
        assert!(text.contains("expected counts that rise"), "{text}");
        let text = read_text(&PAGE.replace("} 90.0", "} many")).unwrap_err();
        assert!(text.starts_with("FOLDER/a.prom:6: expected"), "{text}");
    }
}
