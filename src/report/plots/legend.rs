//! Which sample means what: rows of samples and labels below a plot.
//!
//! Stands outside the axes, so it never hides data, in as many columns as its longest label allows.

use plotters::style::{RGBColor, WHITE};

use super::sheet::{self, Mark, Sheet};
use super::style::{LineStyle, draw_marker};
use super::{INK, MARGIN_PX, PlotError, TEXT_EM_PX, WIDTH_PX};

/// Width of the sample before a label.
const SAMPLE_PX: f64 = 46.0;
/// Space between sample and label.
const SAMPLE_GAP_PX: f64 = 10.0;
/// Space between columns.
const COLUMN_GAP_PX: f64 = 28.0;
/// Height of a row.
const ROW_PX: f64 = 23.0;

/// What stands before a label.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sample {
    /// A line, with the n-th marker upon it if there is one.
    Line(LineStyle, Option<usize>),
    /// A filled rectangle.
    Fill(RGBColor, f64),
    /// A hatched rectangle.
    Hatch(RGBColor),
    /// A line with caps.
    Whisker,
}

/// Samples and labels, in reading order down the columns.
#[derive(Clone, Debug)]
pub(super) struct Legend {
    entries: Vec<(Sample, String)>,
    columns: usize,
    column_px: f64,
}

impl Legend {
    pub(super) fn new(entries: Vec<(Sample, String)>) -> Result<Legend, PlotError> {
        let whole_px = WIDTH_PX - 2.0 * MARGIN_PX;
        let mut widest_px: f64 = 0.0;
        for (_, label) in &entries {
            widest_px = widest_px.max(sheet::text_width_px(label, TEXT_EM_PX)?);
        }
        let column_px = (SAMPLE_PX + SAMPLE_GAP_PX + widest_px).min(whole_px);
        let columns = ((whole_px + COLUMN_GAP_PX) / (column_px + COLUMN_GAP_PX)).floor() as usize;
        Ok(Legend { entries, columns: columns.max(1), column_px })
    }

    fn rows(&self) -> usize {
        self.entries.len().div_ceil(self.columns)
    }

    pub(super) fn height_px(&self) -> f64 {
        self.rows() as f64 * ROW_PX
    }

    /// Draws the legend with its upper edge at `top`.
    pub(super) fn draw(&self, sheet: &mut Sheet, top: f64) -> Result<(), PlotError> {
        let rows = self.rows().max(1);
        for (index, (sample, label)) in self.entries.iter().enumerate() {
            let left = MARGIN_PX + (index / rows) as f64 * (self.column_px + COLUMN_GAP_PX);
            let middle = top + ((index % rows) as f64 + 0.5) * ROW_PX;
            sample.draw(sheet, left, middle);
            let room_px = self.column_px - SAMPLE_PX - SAMPLE_GAP_PX;
            let (text, em_px) = sheet::fit_text(label, TEXT_EM_PX, room_px)?;
            sheet.add(Mark::text(text, left + SAMPLE_PX + SAMPLE_GAP_PX, middle, em_px, INK));
        }
        Ok(())
    }
}

impl Sample {
    fn draw(self, sheet: &mut Sheet, left: f64, middle: f64) {
        let right = left + SAMPLE_PX;
        match self {
            Sample::Line(style, marker) => {
                style.draw(sheet, &[(left, middle), (right, middle)]);
                if let Some(index) = marker {
                    draw_marker(sheet, index, ((left + right) / 2.0, middle));
                }
            }
            Sample::Fill(color, opacity) => {
                let points = vec![
                    (left, middle - 6.0),
                    (right, middle - 6.0),
                    (right, middle + 6.0),
                    (left, middle + 6.0),
                ];
                sheet.add(Mark::Area { points, color, opacity });
            }
            Sample::Hatch(color) => draw_hatch(sheet, (left, middle - 6.0), (right, middle + 6.0), color),
            Sample::Whisker => draw_whisker(sheet, left, right, middle),
        }
    }
}

/// A rectangle of slanted lines within an outline: a bar without a value.
pub(super) fn draw_hatch(sheet: &mut Sheet, from: (f64, f64), to: (f64, f64), color: RGBColor) {
    let height_px = to.1 - from.1;
    let mut foot = from.0 - height_px;
    while foot < to.0 {
        // Each line rises to the right; both ends are cut at the sides of the rectangle.
        let start = foot.max(from.0);
        let end = (foot + height_px).min(to.0);
        let line = Mark::line((start, to.1 - (start - foot)), (end, to.1 - (end - foot)), color, 1.3);
        sheet.add(line);
        foot += 7.0;
    }
    let outline = vec![from, (to.0, from.1), to, (from.0, to.1), from];
    sheet.add(Mark::Line { points: outline, color, width_px: 1.3 });
}

/// A line between two values with caps at its ends, on a white rim so that it shows upon a dark bar.
pub(super) fn draw_whisker(sheet: &mut Sheet, left: f64, right: f64, middle: f64) {
    for (color, rim_px) in [(WHITE, 2.4), (INK, 0.0)] {
        let width_px = 1.6 + rim_px;
        sheet.add(Mark::line((left, middle), (right, middle), color, width_px));
        for x in [left, right] {
            let cap_px = 5.0 + rim_px / 2.0;
            sheet.add(Mark::line((x, middle - cap_px), (x, middle + cap_px), color, width_px));
        }
    }
}
