//! Plots: plain numbers to SVG and PNG.
//!
//! Knows how to lay out curves, bars and panels so that they read at a glance, in colour and in grey, with
//! short labels and with long ones. Does not know runs, policies or files: the caller says what each curve is
//! called and writes the bytes where they belong. Same numbers, same bytes.

use plotters::style::RGBColor;

mod axis;
mod cdf;
mod legend;
mod measured_line;
mod png;
mod replicas;
mod sheet;
mod style;
mod tail_bars;
mod trace;

pub use cdf::{Curve, latency_cdf};
pub use measured_line::{Along, MeasuredLine, measured_lines};
pub use replicas::{ReplicaLine, replicas_over_time};
pub use tail_bars::{TailBar, tail_bars};
pub use trace::{TraceFigures, trace_overview};

use axis::Axis;
use sheet::{Mark, Sheet};

/// One picture in both formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plot {
    /// File name without its ending.
    pub name: String,
    /// A whole SVG document.
    pub svg: String,
    /// A whole PNG file.
    pub png: Vec<u8>,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The font in the binary could not be read.
    #[error("the built-in font cannot be read")]
    Font,
    /// The drawing library gave up.
    #[error("the plot cannot be drawn: {0}")]
    Drawing(String),
    /// The pixels could not be compressed.
    #[error("the plot cannot be written as PNG")]
    Encoding(#[from] std::io::Error),
}

/// Width of every plot; heights grow with what they hold.
const WIDTH_PX: f64 = 1200.0;
/// Height unless there is more to show than fits.
const HEIGHT_PX: f64 = 750.0;
/// Space that stays free at the left and right edges.
const MARGIN_PX: f64 = 36.0;
/// Text of ticks and legends.
const TEXT_EM_PX: f64 = 14.0;
/// Text of the title.
const TITLE_EM_PX: f64 = 20.0;

/// The least time there is, a picosecond: what is shorter is zero.
const LEAST_MS: f64 = 1e-9;

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const SOFT_INK: RGBColor = RGBColor(0x55, 0x55, 0x55);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const FAINT_GRID: RGBColor = RGBColor(0xf0, 0xf0, 0xf0);

/// Writes the title at the top left, smaller if it is long.
fn draw_title(sheet: &mut Sheet, title: &str) -> Result<(), PlotError> {
    let (text, em_px) = sheet::fit_text(title, TITLE_EM_PX, WIDTH_PX - 2.0 * MARGIN_PX)?;
    sheet.add(Mark::text(text, MARGIN_PX, 32.0, em_px, INK));
    Ok(())
}

/// Draws the upright lines of a plot's ticks, and below them the labels that have room. Fewer labels than
/// ticks leave the rest bare.
fn draw_upright_ticks(
    sheet: &mut Sheet,
    axis: &Axis,
    ticks: &[f64],
    labels: &[String],
    (top_px, bottom_px): (f64, f64),
) -> Result<(), PlotError> {
    let mut free_from_px = 0.0;
    for (index, tick) in ticks.iter().enumerate() {
        let x = axis.at(*tick);
        let label = labels.get(index);
        let foot_px = if label.is_some() { 5.0 } else { 0.0 };
        sheet.add(Mark::line((x, top_px), (x, bottom_px + foot_px), GRID, 1.0));
        let Some(label) = label else { continue };
        let half_px = sheet::text_width_px(label, TEXT_EM_PX)? / 2.0;
        if x - half_px >= free_from_px {
            sheet.add(Mark::text_around(label, x, bottom_px + 20.0, TEXT_EM_PX, INK));
            free_from_px = x + half_px + 10.0;
        }
    }
    Ok(())
}

/// A plot of what lies on the sheet.
fn finish(name: &str, sheet: &Sheet) -> Result<Plot, PlotError> {
    Ok(Plot { name: name.to_string(), svg: sheet.to_svg()?, png: sheet.to_png()? })
}

#[cfg(test)]
mod tests;
