//! What each replica did over time: three panels upon one time axis.
//!
//! Knows timelines of possibly different intervals. A fleet of more than sixteen is shown by its middle, its
//! spread and its worst member, since lines upon lines show nothing. Does not know why a replica was busy.

use super::axis::{self, Axis};
use super::legend::{Legend, Sample};
use super::sheet::{Mark, Point, Sheet};
use super::style::LineStyle;
use super::{
    GRID, HEIGHT_PX, INK, LEAST_MS, MARGIN_PX, Plot, PlotError, RGBColor, SOFT_INK, TEXT_EM_PX, WIDTH_PX,
    draw_title, draw_upright_ticks, finish,
};
use crate::metrics::TimelinePoint;

/// The timeline of one replica.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ReplicaLine {
    /// What the legend calls it.
    pub label: String,
    /// Length of a point.
    pub interval_s: f64,
    /// The points, the first at time zero.
    pub points: Vec<TimelinePoint>,
    /// Blocks of the KV cache that requests can hold.
    pub kv_blocks_usable: u32,
}

/// Most replicas that get a line each.
const MOST_LINES: usize = 16;
/// Most intervals that are drawn; more are joined.
const MOST_INTERVALS: usize = 240;
/// The same where there are more lines than this, which would hide each other if all of them were restless.
const MOST_INTERVALS_OF_MANY: usize = 120;
const MANY_LINES: usize = 4;

const LEFT_PX: f64 = 92.0;
const RIGHT_PX: f64 = WIDTH_PX - MARGIN_PX;
const TOP_PX: f64 = 58.0;
/// Space above a panel for its name.
const PANEL_NAME_PX: f64 = 42.0;
const MIDDLE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const WORST: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const BAND_OPACITY: f64 = 0.22;

/// Running requests, waiting requests and use of the KV cache over time, in three panels.
///
/// Every value is the most that was seen in its interval; the time axis says how long that is. Replicas of
/// finer intervals are joined to the coarsest. After its last point a replica is idle.
pub fn replicas_over_time(name: &str, title: &str, replicas: &[ReplicaLine]) -> Result<Plot, PlotError> {
    let fleet = Fleet::of(replicas);
    let many = replicas.len() > MOST_LINES;
    let entries = if many {
        vec![
            (
                Sample::Line(LineStyle::solid(MIDDLE, 2.0), None),
                format!("median of {} replicas", replicas.len()),
            ),
            (Sample::Fill(MIDDLE, BAND_OPACITY), "P10–P90 of the replicas".to_string()),
            (
                Sample::Line(LineStyle::solid(WORST, 1.4), None),
                format!("worst: {} (most waiting)", replicas[fleet.worst()].label),
            ),
        ]
    } else {
        let line = |(index, replica): (usize, &ReplicaLine)| {
            (Sample::Line(LineStyle::nth_restless(index, 1.6), None), replica.label.clone())
        };
        replicas.iter().enumerate().map(line).collect()
    };
    let legend = Legend::new(entries)?;
    let height_px = HEIGHT_PX.max(legend.height_px() + 560.0);
    let bottom_px = height_px - legend.height_px() - 84.0;
    let panel_px = (bottom_px - TOP_PX) / 3.0;

    let mut sheet = Sheet::new(WIDTH_PX, height_px);
    draw_title(&mut sheet, title)?;
    let time_axis = Axis::linear(0.0, fleet.interval_s * fleet.intervals as f64, LEFT_PX, RIGHT_PX);
    for (index, panel) in PANELS.iter().enumerate() {
        let top = TOP_PX + index as f64 * panel_px;
        let bottom = top + panel_px;
        let lines = fleet.lines(panel.value);
        let axis = panel.axis(&lines, top + PANEL_NAME_PX, bottom);
        sheet.add(Mark::text(panel.name, MARGIN_PX, top + 20.0, TEXT_EM_PX, SOFT_INK));
        draw_grid(&mut sheet, &time_axis, &axis, panel, index == PANELS.len() - 1)?;
        if many {
            draw_spread(&mut sheet, &time_axis, &axis, &lines, &fleet);
        } else {
            for (index, line) in lines.iter().enumerate() {
                LineStyle::nth_restless(index, 1.6)
                    .draw(&mut sheet, &steps(&time_axis, &axis, line, fleet.interval_s));
            }
        }
    }
    let x_label = format!("time (s); peaks of every {} s", axis::plain_number(fleet.interval_s));
    sheet.add(Mark::text_around(x_label, (LEFT_PX + RIGHT_PX) / 2.0, bottom_px + 44.0, TEXT_EM_PX, INK));
    legend.draw(&mut sheet, height_px - legend.height_px() - 18.0)?;
    finish(name, &sheet)
}

struct Panel {
    name: &'static str,
    unit: &'static str,
    /// Upper end of the scale, if it is always the same.
    high: Option<f64>,
    value: fn(&TimelinePoint, u32) -> f64,
}

const PANELS: [Panel; 3] = [
    Panel { name: "running requests", unit: "", high: None, value: |point, _| f64::from(point.running) },
    Panel { name: "waiting requests", unit: "", high: None, value: |point, _| f64::from(point.waiting) },
    Panel {
        name: "KV cache in use (%)",
        unit: " %",
        high: Some(100.0),
        value: |point, usable| 100.0 * f64::from(point.kv_blocks_used) / f64::from(usable.max(1)),
    },
];

impl Panel {
    fn axis(&self, lines: &[Vec<f64>], top: f64, bottom: f64) -> Axis {
        let most = lines.iter().flatten().copied().fold(1.0, f64::max);
        Axis::linear(0.0, self.high.unwrap_or(most * 1.04), bottom, top)
    }

    /// Counts have no halves, so a short scale has a tick for each whole number.
    fn ticks(&self, axis: &Axis) -> Vec<f64> {
        axis.ticks(4).into_iter().filter(|tick| tick.fract() == 0.0).collect()
    }
}

/// All replicas upon the same intervals.
struct Fleet {
    interval_s: f64,
    intervals: usize,
    replicas: Vec<(Vec<TimelinePoint>, u32)>,
}

impl Fleet {
    fn of(replicas: &[ReplicaLine]) -> Fleet {
        let valid = |interval_s: f64| interval_s.is_finite() && interval_s >= LEAST_MS / 1_000.0;
        let known = replicas.iter().map(|replica| replica.interval_s).filter(|interval_s| valid(*interval_s));
        let coarsest_s = known.fold(0.0, f64::max);
        let coarsest_s = if coarsest_s > 0.0 { coarsest_s } else { 1.0 };
        let own_s =
            |replica: &ReplicaLine| if valid(replica.interval_s) { replica.interval_s } else { coarsest_s };
        let end_s =
            replicas.iter().map(|replica| own_s(replica) * replica.points.len() as f64).fold(0.0, f64::max);
        let many_lines = (MANY_LINES + 1..=MOST_LINES).contains(&replicas.len());
        let most = if many_lines { MOST_INTERVALS_OF_MANY } else { MOST_INTERVALS };
        let joined = (end_s / coarsest_s / most as f64).ceil().max(1.0);
        let interval_s = coarsest_s * joined;
        // The small number keeps a quotient like 3.0000000001 from becoming a fourth interval.
        let intervals = ((end_s / interval_s - 1e-9).ceil() as usize).max(1);
        let resampled = |replica: &ReplicaLine| {
            (resample(&replica.points, own_s(replica) / interval_s, intervals), replica.kv_blocks_usable)
        };
        Fleet { interval_s, intervals, replicas: replicas.iter().map(resampled).collect() }
    }

    /// One row of values a replica.
    fn lines(&self, value: fn(&TimelinePoint, u32) -> f64) -> Vec<Vec<f64>> {
        let line = |(points, usable): &(Vec<TimelinePoint>, u32)| {
            points.iter().map(|point| value(point, *usable)).collect()
        };
        self.replicas.iter().map(line).collect()
    }

    /// The replica that kept most requests waiting, and of equals the one that ran most; the first of equals.
    fn worst(&self) -> usize {
        let load = |points: &[TimelinePoint]| {
            let waiting: u64 = points.iter().map(|point| u64::from(point.waiting)).sum();
            let running: u64 = points.iter().map(|point| u64::from(point.running)).sum();
            (waiting, running)
        };
        let loads = self.replicas.iter().map(|(points, _)| load(points)).enumerate();
        loads.max_by_key(|(index, load)| (*load, std::cmp::Reverse(*index))).map_or(0, |(index, _)| index)
    }
}

/// Points upon coarser intervals, each the most of what it overlaps. `ratio` is the old length over the new.
fn resample(points: &[TimelinePoint], ratio: f64, intervals: usize) -> Vec<TimelinePoint> {
    let mut joined = vec![TimelinePoint::default(); intervals];
    for (index, point) in points.iter().enumerate() {
        let first = (index as f64 * ratio + 1e-9).floor() as usize;
        let last = ((index + 1) as f64 * ratio - 1e-9).floor() as usize;
        for slot in joined.iter_mut().take(last + 1).skip(first) {
            slot.running = slot.running.max(point.running);
            slot.waiting = slot.waiting.max(point.waiting);
            slot.kv_blocks_used = slot.kv_blocks_used.max(point.kv_blocks_used);
            slot.steps = slot.steps.max(point.steps);
        }
    }
    joined
}

/// Corners of a line that stays level within each interval.
fn steps(time_axis: &Axis, axis: &Axis, values: &[f64], interval_s: f64) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::with_capacity(values.len() * 2);
    for (index, value) in values.iter().enumerate() {
        let y = axis.at(*value);
        let end = time_axis.at((index + 1) as f64 * interval_s);
        match points.last_mut() {
            // A level stretch is one line however long it is.
            Some(last) if last.1 == y => last.0 = end,
            _ => {
                points.push((time_axis.at(index as f64 * interval_s), y));
                points.push((end, y));
            }
        }
    }
    points
}

fn draw_spread(sheet: &mut Sheet, time_axis: &Axis, axis: &Axis, lines: &[Vec<f64>], fleet: &Fleet) {
    let mut spread = [vec![], vec![], vec![]];
    for interval in 0..fleet.intervals {
        let mut values: Vec<f64> = lines.iter().map(|line| line[interval]).collect();
        values.sort_unstable_by(f64::total_cmp);
        for (row, share) in spread.iter_mut().zip([0.1, 0.5, 0.9]) {
            row.push(percentile(&values, share));
        }
    }
    let [low, middle, high] = spread.map(|values| steps(time_axis, axis, &values, fleet.interval_s));
    let band = high.into_iter().chain(low.into_iter().rev()).collect();
    sheet.add(Mark::Area { points: band, color: MIDDLE, opacity: BAND_OPACITY });
    let worst = steps(time_axis, axis, &lines[fleet.worst()], fleet.interval_s);
    LineStyle::solid(WORST, 1.4).draw(sheet, &worst);
    LineStyle::solid(MIDDLE, 2.0).draw(sheet, &middle);
}

/// Linear between neighbours, of at least one sorted value.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() - 1) as f64 * share;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

fn draw_grid(
    sheet: &mut Sheet,
    time_axis: &Axis,
    axis: &Axis,
    panel: &Panel,
    with_times: bool,
) -> Result<(), PlotError> {
    let (bottom, top) = (axis.at(0.0), axis.at(f64::INFINITY));
    let times_s = time_axis.ticks(12);
    let labelled = if with_times { &times_s[..] } else { &[] };
    let labels: Vec<String> = labelled.iter().map(|time_s| axis::plain_number(*time_s)).collect();
    draw_upright_ticks(sheet, time_axis, &times_s, &labels, (top, bottom))?;
    for tick in panel.ticks(axis) {
        let y = axis.at(tick);
        let color = if tick == 0.0 { SOFT_INK } else { GRID };
        sheet.add(Mark::line((LEFT_PX, y), (RIGHT_PX, y), color, 1.0));
        let label = format!("{}{}", axis::plain_number(tick), panel.unit);
        sheet.add(Mark::text_before(label, LEFT_PX - 10.0, y, TEXT_EM_PX, INK));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(running: u32) -> TimelinePoint {
        TimelinePoint { running, ..TimelinePoint::default() }
    }

    #[test]
    fn finer_timelines_are_joined_by_their_peaks() {
        let joined = resample(&[point(1), point(5), point(2), point(3), point(9)], 0.5, 4);
        assert_eq!(joined.iter().map(|point| point.running).collect::<Vec<_>>(), [5, 3, 9, 0]);
        let uneven = resample(&[point(1), point(7), point(2)], 0.75, 3);
        assert_eq!(uneven.iter().map(|point| point.running).collect::<Vec<_>>(), [7, 7, 2]);
    }

    #[test]
    fn the_worst_replica_is_the_one_with_most_waiting() {
        let line = |waiting: u32, running: u32| ReplicaLine {
            interval_s: 0.1,
            points: vec![TimelinePoint { running, waiting, ..TimelinePoint::default() }; 3],
            ..ReplicaLine::default()
        };
        assert_eq!(Fleet::of(&[line(1, 9), line(2, 0), line(2, 4), line(2, 4)]).worst(), 2);
    }

    #[test]
    fn level_stretches_are_one_line() {
        let axis = Axis::linear(0.0, 10.0, 10.0, 0.0);
        let time_axis = Axis::linear(0.0, 4.0, 0.0, 4.0);
        let corners = steps(&time_axis, &axis, &[1.0, 1.0, 3.0, 3.0], 1.0);
        assert_eq!(corners, vec![(0.0, 9.0), (2.0, 9.0), (2.0, 7.0), (4.0, 7.0)]);
    }
}
