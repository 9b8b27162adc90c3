//! A trace at a glance: arrivals over time, lengths, and what a cache of a given size would find.
//!
//! Knows plain numbers. Does not know formats.

use super::axis::{self, Axis};
use super::sheet::{Mark, Point, Sheet};
use super::style::LineStyle;
use super::{
    GRID, HEIGHT_PX, INK, MARGIN_PX, Plot, PlotError, RGBColor, SOFT_INK, TEXT_EM_PX, WIDTH_PX, draw_title,
    draw_upright_ticks, finish,
};

/// What is drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceFigures {
    /// Length of an interval.
    pub interval_s: f64,
    /// Arrivals in each.
    pub arrivals: Vec<u32>,
    /// Prompt lengths, sorted.
    pub prompt_tokens: Vec<u32>,
    /// Output lengths, sorted.
    pub output_tokens: Vec<u32>,
    /// Tokens of a cache, and the share of prompt tokens it would find, both rising; empty without identities.
    pub found: Vec<(f64, f64)>,
}

const LEFT_PX: f64 = 92.0;
const RIGHT_PX: f64 = WIDTH_PX - MARGIN_PX;
const TOP_PX: f64 = 58.0;
/// Space above a panel for its name, and below for its ticks.
const NAME_PX: f64 = 34.0;
const FOOT_PX: f64 = 44.0;
const PROMPTS: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const OUTPUTS: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
/// Most corners of a distribution that are drawn.
const MOST_CORNERS: usize = 600;

/// Three panels, or two for a trace without identities.
///
/// # Errors
/// If the picture cannot be drawn.
pub fn trace_overview(name: &str, title: &str, figures: &TraceFigures) -> Result<Plot, PlotError> {
    let panels = if figures.found.is_empty() { 2.0 } else { 3.0 };
    let height_px = HEIGHT_PX * (0.4 + 0.2 * panels);
    let panel_px = (height_px - TOP_PX) / panels;
    let mut sheet = Sheet::new(WIDTH_PX, height_px);
    draw_title(&mut sheet, title)?;
    let place =
        |index: f64| (TOP_PX + index * panel_px + NAME_PX, TOP_PX + (index + 1.0) * panel_px - FOOT_PX);
    arrivals(&mut sheet, figures, place(0.0))?;
    lengths(&mut sheet, figures, place(1.0))?;
    if !figures.found.is_empty() {
        found(&mut sheet, figures, place(2.0))?;
    }
    finish(name, &sheet)
}

fn arrivals(sheet: &mut Sheet, figures: &TraceFigures, (top, bottom): (f64, f64)) -> Result<(), PlotError> {
    let interval_s = figures.interval_s;
    let most = figures.arrivals.iter().copied().max().unwrap_or(1);
    let across = Axis::linear(0.0, interval_s * figures.arrivals.len() as f64, LEFT_PX, RIGHT_PX);
    let up = Axis::linear(0.0, f64::from(most) / interval_s * 1.04, bottom, top);
    name(sheet, "arrivals, requests/s", top);
    let ticks = across.ticks(12);
    let labels: Vec<String> = ticks.iter().map(|tick| axis::plain_number(*tick)).collect();
    draw_upright_ticks(sheet, &across, &ticks, &labels, (top, bottom))?;
    level_ticks(sheet, &up, "");
    let mut points: Vec<Point> = Vec::new();
    for (index, count) in figures.arrivals.iter().enumerate() {
        let y = up.at(f64::from(*count) / interval_s);
        points.push((across.at(index as f64 * interval_s), y));
        points.push((across.at((index + 1) as f64 * interval_s), y));
    }
    LineStyle::solid(PROMPTS, 1.4).draw(sheet, &points);
    below(sheet, &format!("time (s); counts of every {} s", axis::plain_number(interval_s)), bottom);
    Ok(())
}

fn lengths(sheet: &mut Sheet, figures: &TraceFigures, (top, bottom): (f64, f64)) -> Result<(), PlotError> {
    let both = [&figures.prompt_tokens, &figures.output_tokens];
    let most = both.iter().filter_map(|lengths| lengths.last()).copied().max().unwrap_or(10);
    let across = Axis::logarithmic(1.0, f64::from(most.max(10)), LEFT_PX, RIGHT_PX);
    let up = Axis::linear(0.0, 100.0, bottom, top);
    name(sheet, "requests of at most so many tokens (%)", top);
    log_ticks(sheet, &across, (top, bottom))?;
    level_ticks(sheet, &up, " %");
    for (lengths, color, label, x) in
        [(both[0], PROMPTS, "prompts", RIGHT_PX - 150.0), (both[1], OUTPUTS, "outputs", RIGHT_PX - 70.0)]
    {
        LineStyle::solid(color, 2.0).draw(sheet, &corners(lengths, &across, &up));
        sheet.add(Mark::text(label, x, top - 16.0, TEXT_EM_PX, color));
    }
    below(sheet, "tokens", bottom);
    Ok(())
}

fn found(sheet: &mut Sheet, figures: &TraceFigures, (top, bottom): (f64, f64)) -> Result<(), PlotError> {
    let least = figures.found.iter().map(|point| point.0).fold(f64::INFINITY, f64::min).max(1.0);
    let most = figures.found.iter().map(|point| point.0).fold(10.0, f64::max);
    let across = Axis::logarithmic(least, most, LEFT_PX, RIGHT_PX);
    let up = Axis::linear(0.0, 100.0, bottom, top);
    name(sheet, "prompt tokens that one cache finds again (%), by its size", top);
    log_ticks(sheet, &across, (top, bottom))?;
    level_ticks(sheet, &up, " %");
    let points: Vec<Point> =
        figures.found.iter().map(|(tokens, share)| (across.at(*tokens), up.at(100.0 * share))).collect();
    LineStyle::solid(PROMPTS, 2.0).draw(sheet, &points);
    below(sheet, "tokens that the cache holds", bottom);
    Ok(())
}

/// Corners of the distribution of sorted values, thinned where there are many.
fn corners(sorted: &[u32], across: &Axis, up: &Axis) -> Vec<Point> {
    let count = sorted.len();
    let step = count.div_ceil(MOST_CORNERS).max(1);
    let places = (0..count).step_by(step).chain(count.checked_sub(1));
    places
        .map(|place| {
            let share = 100.0 * (place + 1) as f64 / count as f64;
            (across.at(f64::from(sorted[place].max(1))), up.at(share))
        })
        .collect()
}

fn name(sheet: &mut Sheet, text: &str, top: f64) {
    sheet.add(Mark::text(text, MARGIN_PX, top - 16.0, TEXT_EM_PX, SOFT_INK));
}

fn below(sheet: &mut Sheet, text: &str, bottom: f64) {
    sheet.add(Mark::text_around(text, (LEFT_PX + RIGHT_PX) / 2.0, bottom + 36.0, TEXT_EM_PX, INK));
}

fn level_ticks(sheet: &mut Sheet, up: &Axis, unit: &str) {
    for tick in up.ticks(4) {
        let y = up.at(tick);
        sheet.add(Mark::line((LEFT_PX, y), (RIGHT_PX, y), if tick == 0.0 { SOFT_INK } else { GRID }, 1.0));
        let label = format!("{}{unit}", axis::plain_number(tick));
        sheet.add(Mark::text_before(label, LEFT_PX - 10.0, y, TEXT_EM_PX, INK));
    }
}

fn log_ticks(sheet: &mut Sheet, across: &Axis, edges: (f64, f64)) -> Result<(), PlotError> {
    let ticks = across.ticks(12);
    let labels: Vec<String> = ticks.iter().map(|tick| axis::thousands(*tick, 0)).collect();
    draw_upright_ticks(sheet, across, &ticks, &labels, edges)
}
