//! P50, P90 and P99 side by side, one group of bars a policy.
//!
//! The bars lie on their sides: labels of any length then read without turning one's head. Knows three
//! percentiles and an interval; does not know what they are of.

use plotters::style::{RGBColor, WHITE};

use super::axis::{self, Axis};
use super::legend::{Legend, Sample, draw_hatch, draw_whisker};
use super::sheet::{self, Mark, Sheet};
use super::{
    HEIGHT_PX, INK, LEAST_MS, MARGIN_PX, Plot, PlotError, SOFT_INK, TEXT_EM_PX, WIDTH_PX, draw_title,
    draw_upright_ticks, finish,
};

/// Percentiles of one policy, in milliseconds.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct TailBar {
    /// What stands beside the bars.
    pub label: String,
    /// Median; none if half of the requests or more never completed, so that it is infinite.
    pub p50_ms: Option<f64>,
    /// 90th percentile; none if infinite.
    pub p90_ms: Option<f64>,
    /// 99th percentile; none if infinite.
    pub p99_ms: Option<f64>,
    /// Lower and upper end of the interval of the 99th percentile.
    pub p99_interval_ms: Option<(f64, f64)>,
}

/// From light to dark, so that grey paper keeps the order.
const PERCENTILES: [(&str, RGBColor); 3] = [
    ("P50", RGBColor(0xa9, 0xcf, 0xe8)),
    ("P90", RGBColor(0x3f, 0x8f, 0xc4)),
    ("P99", RGBColor(0x0b, 0x3c, 0x66)),
];
const TOP_PX: f64 = 72.0;
/// Space from the bars to the lower edge, without the legend.
const BELOW_PX: f64 = 92.0;
/// Least and most height of a bar.
const BAR_PX: (f64, f64) = (12.0, 28.0);
/// Height of a group in bars; the three and the space to the next group.
const BARS_PER_GROUP: f64 = 3.8;
/// Space at the right of the bars, for the number of the longest.
const NUMBER_PX: f64 = 96.0;
/// A label takes no more of the width than this before it is made smaller.
const WIDEST_LABEL_PX: f64 = 420.0;
/// Text of the numbers beside the bars.
const NUMBER_EM_PX: f64 = 12.0;
const HATCH: RGBColor = RGBColor(0xd5, 0x5e, 0x00);

/// Bars of P50, P90 and P99. `y_label` says which latency the bars measure; the ticks bear the unit.
///
/// A percentile without a value is infinite: its bar is hatched and runs to the end of the scale.
pub fn tail_bars(name: &str, title: &str, y_label: &str, bars: &[TailBar]) -> Result<Plot, PlotError> {
    let legend = legend(bars)?;
    let around_px = TOP_PX + BELOW_PX + legend.height_px();
    let groups = bars.len().max(1) as f64;
    // Three bars, and between groups the space of the rest.
    let bar_px = ((HEIGHT_PX - around_px) / groups / BARS_PER_GROUP).clamp(BAR_PX.0, BAR_PX.1);
    let group_px = (bar_px * BARS_PER_GROUP).max((HEIGHT_PX - around_px) / groups);
    let height_px = around_px + group_px * groups;
    let bottom_px = TOP_PX + group_px * groups;

    let mut labels = Vec::new();
    let mut left_px: f64 = MARGIN_PX;
    for bar in bars {
        let (label, em_px) = sheet::fit_text(&bar.label, TEXT_EM_PX, WIDEST_LABEL_PX)?;
        left_px = left_px.max(MARGIN_PX + sheet::text_width_px(&label, em_px)? + 14.0);
        labels.push((label, em_px));
    }
    let axis = Axis::linear(0.0, longest_ms(bars), left_px, WIDTH_PX - MARGIN_PX - NUMBER_PX);

    let mut sheet = Sheet::new(WIDTH_PX, height_px);
    draw_title(&mut sheet, title)?;
    let ticks_ms = axis.ticks(8);
    let tick_labels = axis::linear_time_labels(&ticks_ms);
    draw_upright_ticks(&mut sheet, &axis, &ticks_ms, &tick_labels, (TOP_PX, bottom_px))?;
    let right_px = WIDTH_PX - MARGIN_PX - NUMBER_PX;
    let (y_label, em_px) = sheet::fit_text(y_label, TEXT_EM_PX, right_px - left_px)?;
    sheet.add(Mark::text_around(y_label, (left_px + right_px) / 2.0, bottom_px + 46.0, em_px, INK));
    for (index, (bar, (label, em_px))) in bars.iter().zip(labels).enumerate() {
        let middle_px = TOP_PX + (index as f64 + 0.5) * group_px;
        sheet.add(Mark::text_before(label, left_px - 12.0, middle_px, em_px, INK));
        draw_group(&mut sheet, &axis, bar, middle_px, bar_px)?;
    }
    if bars.is_empty() {
        let middle_px = (TOP_PX + bottom_px) / 2.0;
        sheet.add(Mark::text_around("nothing to compare", WIDTH_PX / 2.0, middle_px, TEXT_EM_PX, SOFT_INK));
    }
    sheet.add(Mark::line((left_px, TOP_PX), (left_px, bottom_px), SOFT_INK, 1.0));
    legend.draw(&mut sheet, height_px - legend.height_px() - 18.0)?;
    finish(name, &sheet)
}

/// Finite percentiles only; anything else is infinite.
fn percentiles(bar: &TailBar) -> [Option<f64>; 3] {
    [bar.p50_ms, bar.p90_ms, bar.p99_ms].map(|value| value.filter(|ms| ms.is_finite()).map(|ms| ms.max(0.0)))
}

/// Ends of the interval, if both are numbers; an infinite upper end runs off the scale.
fn interval(bar: &TailBar) -> Option<(f64, f64)> {
    bar.p99_interval_ms
        .filter(|(low, high)| low.is_finite() && low <= high)
        .map(|(low, high)| (low.max(0.0), high))
}

fn longest_ms(bars: &[TailBar]) -> f64 {
    let values = bars.iter().flat_map(percentiles).flatten();
    let ends = bars.iter().filter_map(interval).flat_map(|(low, high)| [low, high]);
    let longest_ms = values.chain(ends).filter(|ms| ms.is_finite()).fold(0.0, f64::max);
    if longest_ms >= LEAST_MS { longest_ms * 1.02 } else { 1.0 }
}

/// Explains only what is drawn.
fn legend(bars: &[TailBar]) -> Result<Legend, PlotError> {
    let mut entries: Vec<(Sample, String)> =
        PERCENTILES.iter().map(|(name, color)| (Sample::Fill(*color, 1.0), name.to_string())).collect();
    if bars.iter().any(|bar| interval(bar).is_some()) {
        entries.push((Sample::Whisker, "interval of the P99".to_string()));
    }
    if bars.iter().flat_map(percentiles).any(|value| value.is_none()) {
        entries.push((Sample::Hatch(HATCH), "not finite".to_string()));
    }
    Legend::new(entries)
}

fn draw_group(
    sheet: &mut Sheet,
    axis: &Axis,
    bar: &TailBar,
    middle_px: f64,
    bar_px: f64,
) -> Result<(), PlotError> {
    for (index, (value, (_, color))) in percentiles(bar).into_iter().zip(PERCENTILES).enumerate() {
        let top = middle_px + (index as f64 - 1.5) * bar_px + 0.5;
        let bottom = top + bar_px - 1.0;
        let middle = (top + bottom) / 2.0;
        let (mut end, number) = match value {
            Some(value_ms) => (axis.at(value_ms), axis::measured_time(value_ms)),
            None => (axis.at(f64::INFINITY), "∞ not finite".to_string()),
        };
        match value {
            Some(_) => sheet.add(Mark::bar((axis.at(0.0), top), (end, bottom), color)),
            None => draw_hatch(sheet, (axis.at(0.0), top), (end, bottom), HATCH),
        }
        if let (2, Some((low_ms, high_ms))) = (index, interval(bar)) {
            draw_whisker(sheet, axis.at(low_ms), axis.at(high_ms), middle);
            end = end.max(axis.at(high_ms));
        }
        // White behind the number, or a line of the grid would run through its digits.
        let width_px = sheet::text_width_px(&number, NUMBER_EM_PX)?;
        sheet.add(Mark::bar((end + 4.0, top), (end + 12.0 + width_px, bottom), WHITE));
        sheet.add(Mark::text(number, end + 8.0, middle, NUMBER_EM_PX, INK));
    }
    Ok(())
}
