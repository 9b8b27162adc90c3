//! `sweep.csv`, a row a cell, contender and repetition, and what it says in short: means, knees and the front of latency and cost.

use super::plots::{Along, MeasuredLine, Plot, PlotError, measured_lines};
use super::table::{Table, number, number_or_dash};
use crate::metrics::{Quantiles, RunSummary};
use crate::study::capacity::usd_per_million_output_tokens;
use crate::study::compare::{Comparison, Contender};
use crate::study::ranking::Ranked;
use crate::study::sweep::{knee, pareto_front};

/// Columns behind those of the keys.
const COLUMNS: [&str; 36] = [
    "name",
    "policy",
    "repetition",
    "replicas",
    "mean_replicas",
    "offered",
    "completed",
    "rejected",
    "aborted",
    "unfinished",
    "offered_requests_per_s",
    "saturation_requests_per_s",
    "load",
    "requests_per_s",
    "output_tokens_per_s",
    "goodput_requests_per_s",
    "goodput_share",
    "ttft_mean_ms",
    "ttft_p50_ms",
    "ttft_p90_ms",
    "ttft_p99_ms",
    "tpot_mean_ms",
    "tpot_p50_ms",
    "tpot_p90_ms",
    "tpot_p99_ms",
    "e2e_mean_ms",
    "e2e_p50_ms",
    "e2e_p90_ms",
    "e2e_p99_ms",
    "e2e_p99_of_offered_ms",
    "preemptions",
    "prefix_cache_hit_rate",
    "busy_share",
    "kv_cache_usage",
    "usd_per_hour",
    "usd_per_million_output_tokens",
];

/// The first line.
///
/// # Errors
/// If the bytes cannot be put together, which memory alone could cause.
pub fn head(keys: &[String]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let columns = COLUMNS.iter().map(|column| (*column).to_string());
    writer.write_record(std::iter::once("cell".to_string()).chain(keys.iter().cloned()).chain(columns))?;
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// The rows of cell number `cell`, in the order in which contenders were given.
///
/// # Errors
/// As [`head`].
pub fn rows(
    cell: usize,
    values: &[String],
    comparison: &Comparison,
    contenders: &[Contender],
) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for contender in contenders {
        let of = |ranked: &&Ranked| ranked.name == contender.name;
        let Some(ranked) = comparison.ranking.iter().find(of) else { continue };
        let kinds = &contender.scenario.replicas;
        let replicas: u32 = kinds.iter().map(|kind| kind.count).sum();
        let usd: Option<f64> =
            kinds.iter().map(|kind| Some(kind.usd_per_hour()? * f64::from(kind.count))).sum();
        for (repetition, summary) in ranked.repetitions.iter().enumerate() {
            // Where replicas come and go, the mean of the run is what it cost.
            let scaled = summary.scaling.as_ref().and(summary.cost.as_ref());
            let usd = scaled.map_or(usd, |cost| cost.usd_per_hour);
            let row = row(ranked, summary, comparison, repetition, replicas, usd);
            let keys = std::iter::once(cell.to_string()).chain(values.iter().cloned());
            writer.write_record(keys.chain(row))?;
        }
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

fn row(
    ranked: &Ranked,
    summary: &RunSummary,
    comparison: &Comparison,
    repetition: usize,
    replicas: u32,
    usd_per_hour: Option<f64>,
) -> [String; COLUMNS.len()] {
    let figure = |value: f64| format!("{value}");
    let mean_replicas = summary.scaling.as_ref().map_or(f64::from(replicas), |scaling| scaling.mean_replicas);
    let maybe = |value: Option<f64>| value.map_or(String::new(), figure);
    let of = |quantiles: &Quantiles| {
        [quantiles.mean_ms, quantiles.p50_ms, quantiles.p90_ms, quantiles.p99_ms].map(maybe)
    };
    let [ttft_mean, ttft_p50, ttft_p90, ttft_p99] = of(&summary.ttft);
    let [tpot_mean, tpot_p50, tpot_p90, tpot_p99] = of(&summary.tpot);
    let [e2e_mean, e2e_p50, e2e_p90, e2e_p99] = of(&summary.e2e);
    let saturation = comparison.standing.saturation_requests_per_s;
    let tokens = summary.output_tokens_per_s / summary.requests_per_s.max(f64::MIN_POSITIVE);
    let bears = saturation.map(|saturation| saturation.max(summary.requests_per_s));
    let usd_per_million =
        |usd| usd_per_million_output_tokens(usd, tokens, summary.offered_requests_per_s, bears);
    [
        ranked.name.clone(),
        ranked.policy.clone(),
        repetition.to_string(),
        replicas.to_string(),
        figure(mean_replicas),
        summary.offered.to_string(),
        summary.completed.to_string(),
        summary.rejected.to_string(),
        summary.aborted.to_string(),
        summary.unfinished.to_string(),
        figure(summary.offered_requests_per_s),
        maybe(saturation),
        maybe(saturation.map(|saturation| summary.offered_requests_per_s / saturation)),
        figure(summary.requests_per_s),
        figure(summary.output_tokens_per_s),
        figure(summary.goodput_requests_per_s),
        figure(summary.goodput_share),
        ttft_mean,
        ttft_p50,
        ttft_p90,
        ttft_p99,
        tpot_mean,
        tpot_p50,
        tpot_p90,
        tpot_p99,
        e2e_mean,
        e2e_p50,
        e2e_p90,
        e2e_p99,
        maybe(summary.e2e_p99_of_offered_ms),
        summary.preemptions.to_string(),
        figure(summary.prefix_cache_hit_rate),
        figure(summary.busy_share),
        figure(summary.kv_cache_usage),
        maybe(usd_per_hour),
        maybe(usd_per_hour.and_then(usd_per_million)),
    ]
}

/// A cell under one contender, mean over repetitions; what is infinite in one is infinite in the mean.
struct Mean {
    cell: usize,
    values: Vec<String>,
    name: String,
    load: Option<f64>,
    offered_requests_per_s: f64,
    ttft_p99_ms: f64,
    e2e_p99_ms: f64,
    goodput_share: f64,
    usd_per_million: Option<f64>,
}

/// The same while its repetitions are added up.
struct Sum {
    cell: usize,
    values: Vec<String>,
    name: String,
    figures: [f64; 6],
    count: f64,
}

impl Sum {
    fn mean(self) -> Mean {
        let [load, offered, ttft, e2e, good, usd] = self.figures.map(|figure| figure / self.count);
        let known = |value: f64| value.is_finite().then_some(value);
        Mean {
            cell: self.cell,
            values: self.values,
            name: self.name,
            load: known(load),
            offered_requests_per_s: offered,
            ttft_p99_ms: ttft,
            e2e_p99_ms: e2e,
            goodput_share: good,
            usd_per_million: known(usd),
        }
    }
}

/// What a whole `sweep.csv` says.
pub struct Findings {
    keys: Vec<String>,
    means: Vec<Mean>,
}

impl Findings {
    /// From the file's bytes.
    ///
    /// # Errors
    /// If it is no `sweep.csv`.
    pub fn of(csv: &[u8]) -> Result<Findings, csv::Error> {
        let mut reader = csv::Reader::from_reader(csv);
        let head = reader.headers()?.clone();
        let keys: Vec<String> =
            head.iter().skip(1).take(head.len() - 1 - COLUMNS.len()).map(String::from).collect();
        let column =
            |name: &str| 1 + keys.len() + COLUMNS.iter().position(|column| *column == name).unwrap_or(0);
        let (name, columns) = (
            column("name"),
            [
                "load",
                "offered_requests_per_s",
                "ttft_p99_ms",
                "e2e_p99_of_offered_ms",
                "goodput_share",
                "usd_per_million_output_tokens",
            ]
            .map(column),
        );
        // Repetitions of a contender in a cell stand one below the other.
        let mut sums: Vec<Sum> = Vec::new();
        for record in reader.records() {
            let record = record?;
            let text = |place: usize| record.get(place).unwrap_or("");
            let (cell, name) = (text(0).parse().unwrap_or(0), text(name));
            if sums.last().is_none_or(|last| last.cell != cell || last.name != name) {
                let values = (1..=keys.len()).map(|place| text(place).to_string()).collect();
                sums.push(Sum { cell, values, name: name.to_string(), figures: [0.0; 6], count: 0.0 });
            }
            let Some(sum) = sums.last_mut() else { continue };
            for (figure, place) in sum.figures.iter_mut().zip(columns) {
                // Nothing is infinite for latencies, and no figure for the others.
                *figure += text(place).parse::<f64>().unwrap_or(f64::INFINITY);
            }
            sum.count += 1.0;
        }
        Ok(Findings { keys, means: sums.into_iter().map(Sum::mean).collect() })
    }

    /// A name for each line: the contender, and what the keys behind the first are set to.
    fn line_of(&self, mean: &Mean) -> String {
        let others =
            self.keys.iter().zip(&mean.values).skip(1).map(|(key, value)| format!(", {key} = {value}"));
        mean.name.clone() + others.collect::<String>().as_str()
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for line in self.means.iter().map(|mean| self.line_of(mean)) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }

    /// The first key, if it has numbers, of which there are several.
    fn numbers(&self) -> Option<Vec<f64>> {
        let numbers: Vec<f64> =
            self.means.iter().map(|mean| mean.values.first()?.parse().ok()).collect::<Option<_>>()?;
        numbers.iter().any(|number| *number != numbers[0]).then_some(numbers)
    }

    /// E2E P99 of a line over the first key, ascending, with places among all means.
    fn curve(&self, line: &str) -> Vec<(usize, (f64, f64))> {
        let Some(numbers) = self.numbers() else { return Vec::new() };
        let own = (0..self.means.len()).filter(|&place| self.line_of(&self.means[place]) == line);
        let mut curve: Vec<(usize, (f64, f64))> =
            own.map(|place| (place, (numbers[place], self.means[place].e2e_p99_ms))).collect();
        curve.sort_by(|a, b| a.1.0.total_cmp(&b.1.0));
        curve
    }

    fn knees(&self) -> Vec<usize> {
        let of = |line: &String| {
            let curve: Vec<_> = self.curve(line).into_iter().filter(|(_, (_, y))| y.is_finite()).collect();
            let points: Vec<(f64, f64)> = curve.iter().map(|(_, point)| *point).collect();
            knee(&points).map(|place| curve[place].0)
        };
        self.lines().iter().filter_map(of).collect()
    }

    /// Nobody is cheaper and sooner; empty where all cost the same. Who is overloaded is out of it: its latency is the run's length.
    fn front(&self) -> Vec<usize> {
        let ms = |mean: &Mean| {
            if mean.load.is_some_and(|load| load > 1.0) { f64::INFINITY } else { mean.e2e_p99_ms }
        };
        // The last digits of a mean depend on how many were added up; nobody is cheaper by those.
        let told = |usd: f64| format!("{usd:.9e}").parse().unwrap_or(usd);
        let points: Option<Vec<(f64, f64)>> =
            self.means.iter().map(|mean| Some((told(mean.usd_per_million?), ms(mean)))).collect();
        match points {
            Some(points) if points.iter().any(|point| point.0 != points[0].0) => pareto_front(&points),
            _ => Vec::new(),
        }
    }

    /// As a table.
    pub fn text(&self) -> String {
        let (knees, front) = (self.knees(), self.front());
        let mut head: Vec<&str> = vec!["cell"];
        head.extend(self.keys.iter().map(String::as_str));
        head.extend([
            "name",
            "requests/s",
            "load %",
            "TTFT P99 ms",
            "E2E P99 ms",
            "good %",
            "$ a million tokens",
            "marks",
        ]);
        let mut table = Table::new(&head, self.keys.len() + 2);
        for (place, mean) in self.means.iter().enumerate() {
            let mut cells = vec![mean.cell.to_string()];
            cells.extend(mean.values.iter().cloned());
            let finite = |value: f64| if value.is_finite() { number(value) } else { "infinite".into() };
            let marks = [(&knees, "knee"), (&front, "front")];
            let marks: Vec<&str> = marks
                .into_iter()
                .filter(|(places, _)| places.contains(&place))
                .map(|(_, mark)| mark)
                .collect();
            cells.extend([
                mean.name.clone(),
                number(mean.offered_requests_per_s),
                number_or_dash(mean.load.map(|load| load * 100.0)),
                finite(mean.ttft_p99_ms),
                finite(mean.e2e_p99_ms),
                number(mean.goodput_share * 100.0),
                number_or_dash(mean.usd_per_million),
                marks.join(", "),
            ]);
            table.row(cells);
        }
        let mut text = table.render();
        if !knees.is_empty() {
            text.push_str("knee: from here on a step along the key costs more latency than it did before\n");
        }
        if !front.is_empty() {
            text.push_str(
                "front: nothing here that is not overloaded is both cheaper a token and sooner by E2E P99\n",
            );
        }
        text
    }

    /// E2E P99 over the key where one was varied, and over the price where prices differ.
    ///
    /// # Errors
    /// If one cannot be drawn.
    pub fn plots(&self, title: &str) -> Result<Vec<Plot>, PlotError> {
        let titled =
            |what: &str| if title.is_empty() { what.to_string() } else { format!("{title} \u{2013} {what}") };
        let mut plots = Vec::new();
        let lines = self.lines();
        // Of more lines nobody could tell one from another.
        if self.numbers().is_some() && lines.len() <= MOST_LINES {
            let knees = self.knees();
            let line = |line: &String| {
                let curve = self.curve(line);
                let ringed = curve.iter().filter(|(place, _)| knees.contains(place));
                MeasuredLine {
                    label: line.clone(),
                    points: curve.iter().map(|(_, point)| *point).collect(),
                    ringed: ringed.map(|(_, point)| *point).collect(),
                }
            };
            let what = if knees.is_empty() { "" } else { ", knees ringed" };
            let title = titled(&format!("E2E P99 along the sweep{what}"));
            let measured: Vec<MeasuredLine> = lines.iter().map(line).collect();
            plots.push(measured_lines(
                "load-curve",
                &title,
                Along::Sizes,
                (&self.keys[0], "E2E P99 (ms)"),
                &measured,
                None,
            )?);
        }
        let front = self.front();
        if !front.is_empty() && lines.len() <= MOST_LINES {
            let point = |place: usize| {
                (self.means[place].usd_per_million.unwrap_or(0.0), self.means[place].e2e_p99_ms)
            };
            let line = |line: &String| {
                let own = (0..self.means.len()).filter(|&place| self.line_of(&self.means[place]) == *line);
                let mut own: Vec<usize> = own.collect();
                own.sort_by(|&a, &b| point(a).0.total_cmp(&point(b).0));
                MeasuredLine {
                    label: line.clone(),
                    points: own.iter().map(|&place| point(place)).collect(),
                    ringed: own
                        .iter()
                        .filter(|place| front.contains(place))
                        .map(|&place| point(place))
                        .collect(),
                }
            };
            let title = titled("E2E P99 against cost, the front ringed");
            let axes = ("US dollars a million output tokens", "E2E P99 (ms)");
            let measured: Vec<MeasuredLine> = lines.iter().map(line).collect();
            plots.push(measured_lines("cost-front", &title, Along::Sizes, axes, &measured, None)?);
        }
        Ok(plots)
    }
}

/// Lines that a picture holds at most.
const MOST_LINES: usize = 12;
