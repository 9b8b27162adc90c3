//! Measured points joined by lines, one line a policy, over a quantity that was varied.
//!
//! Knows numbers. Does not know what was varied, nor what was measured.

use super::axis::{Axis, plain_number};
use super::legend::{Legend, Sample};
use super::sheet::{Mark, Point, Sheet, fit_text};
use super::style::{LineStyle, draw_marker};
use super::{
    FAINT_GRID, GRID, HEIGHT_PX, INK, MARGIN_PX, Plot, PlotError, SOFT_INK, TEXT_EM_PX, WIDTH_PX, draw_title,
    draw_upright_ticks, finish,
};

/// Points of one line, ascending in x. A y that is not finite is not drawn.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct MeasuredLine {
    /// What the legend calls it.
    pub label: String,
    /// (x, y), both positive where an axis is logarithmic.
    pub points: Vec<(f64, f64)>,
    /// Points that bear a ring: a knee, or the answer.
    pub ringed: Vec<(f64, f64)>,
}

/// How the quantity that was varied is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// By its range: logarithmic where that is wide.
    Sizes,
    /// Evenly, as time passes.
    Time,
}

const LEFT_PX: f64 = 92.0;
const RIGHT_PX: f64 = WIDTH_PX - 72.0;
const TOP_PX: f64 = 92.0;
/// Ratio of largest to smallest value above which an axis becomes logarithmic.
const LOGARITHMIC_ABOVE: f64 = 12.0;

/// y over x, with a dashed line at `limit` if there is one.
///
/// # Errors
/// If it cannot be drawn.
pub fn measured_lines(
    name: &str,
    title: &str,
    along: Along,
    (x_label, y_label): (&str, &str),
    lines: &[MeasuredLine],
    limit: Option<(f64, &str)>,
) -> Result<Plot, PlotError> {
    let marker = |index: usize| (lines.len() > 1).then_some(index);
    let entries = lines
        .iter()
        .enumerate()
        .map(|(index, line)| (Sample::Line(LineStyle::nth(index, 2.4), marker(index)), line.label.clone()));
    let legend = Legend::new(entries.collect())?;
    let height_px = HEIGHT_PX.max(legend.height_px() + 430.0);
    let bottom_px = height_px - legend.height_px() - 92.0;
    let mut sheet = Sheet::new(WIDTH_PX, height_px);
    draw_title(&mut sheet, title)?;
    sheet.add(Mark::text(y_label, MARGIN_PX, TOP_PX - 26.0, TEXT_EM_PX, SOFT_INK));
    let (x_label, em_px) = fit_text(x_label, TEXT_EM_PX, RIGHT_PX - LEFT_PX)?;
    sheet.add(Mark::text_around(x_label, (LEFT_PX + RIGHT_PX) / 2.0, bottom_px + 50.0, em_px, INK));

    let finite = || lines.iter().flat_map(|line| &line.points).filter(|(_, y)| y.is_finite());
    let x_values = finite().map(|(x, _)| *x);
    let x_axis = match along {
        Along::Sizes => axis(x_values, LEFT_PX, RIGHT_PX, false),
        Along::Time => {
            let high = x_values.clone().fold(f64::MIN_POSITIVE, f64::max);
            let low = x_values.fold(high, f64::min);
            Axis::linear(low, high.max(low + 1.0), LEFT_PX, RIGHT_PX)
        }
    };
    let y_axis = axis(finite().map(|(_, y)| *y).chain(limit.map(|(y, _)| y)), bottom_px, TOP_PX, true);
    for tick in x_axis.minor_ticks() {
        let x = x_axis.at(tick);
        sheet.add(Mark::line((x, TOP_PX), (x, bottom_px), FAINT_GRID, 1.0));
    }
    let mut ticks = x_axis.ticks(10);
    if finite().all(|(x, _)| x.fract() == 0.0) {
        // Nobody rents half a replica.
        ticks.retain(|tick| tick.fract() == 0.0);
    }
    let labels: Vec<String> = ticks.iter().map(|tick| plain_number(*tick)).collect();
    draw_upright_ticks(&mut sheet, &x_axis, &ticks, &labels, (TOP_PX, bottom_px))?;
    for tick in y_axis.ticks(8) {
        let y = y_axis.at(tick);
        sheet.add(Mark::line((LEFT_PX, y), (RIGHT_PX, y), GRID, 1.0));
        sheet.add(Mark::text_before(plain_number(tick), LEFT_PX - 10.0, y, TEXT_EM_PX, INK));
    }
    sheet.add(Mark::line((LEFT_PX, bottom_px), (RIGHT_PX, bottom_px), SOFT_INK, 1.0));
    if let Some((limit, label)) = limit {
        let y = y_axis.at(limit);
        LineStyle::dashed(SOFT_INK, 1.4).draw(&mut sheet, &[(LEFT_PX, y), (RIGHT_PX, y)]);
        sheet.add(Mark::text(label, RIGHT_PX + 10.0, y, TEXT_EM_PX, INK));
    }
    let place = |&(x, y): &(f64, f64)| (x_axis.at(x), y_axis.at(y));
    for (index, line) in lines.iter().enumerate() {
        let path: Vec<Point> = line.points.iter().filter(|(_, y)| y.is_finite()).map(place).collect();
        LineStyle::nth(index, 2.4).draw(&mut sheet, &path);
        if along == Along::Sizes {
            path.iter().for_each(|&at| draw_marker(&mut sheet, index, at));
        } else if let Some(&last) = path.last() {
            draw_marker(&mut sheet, index, last);
        }
        for (x, y) in line.ringed.iter().map(place) {
            ring(&mut sheet, (x, y));
        }
    }
    if finite().next().is_none() {
        let middle = ((LEFT_PX + RIGHT_PX) / 2.0, (TOP_PX + bottom_px) / 2.0);
        sheet.add(Mark::text_around("nothing finite was measured", middle.0, middle.1, TEXT_EM_PX, SOFT_INK));
    }
    legend.draw(&mut sheet, height_px - legend.height_px() - 20.0)?;
    finish(name, &sheet)
}

/// A circle around a point, larger than any marker.
fn ring(sheet: &mut Sheet, (x, y): Point) {
    const RADIUS_PX: f64 = 11.0;
    const CORNERS: u32 = 32;
    let corner = |number: u32| {
        let angle = f64::from(number) / f64::from(CORNERS) * std::f64::consts::TAU;
        (x + RADIUS_PX * angle.cos(), y + RADIUS_PX * angle.sin())
    };
    let around: Vec<Point> = (0..=CORNERS).map(corner).collect();
    LineStyle::solid(INK, 1.6).draw(sheet, &around);
}

/// `from_nothing`: of what was measured nothing is the measure, so an even scale begins there unless all lies far from it.
fn axis(values: impl Iterator<Item = f64> + Clone, from_px: f64, to_px: f64, from_nothing: bool) -> Axis {
    let high = values.clone().fold(0.0, f64::max);
    let low = values.fold(high, f64::min);
    if low > 0.0 && high / low > LOGARITHMIC_ABOVE {
        return Axis::logarithmic(low / 1.15, high * 1.15, from_px, to_px);
    }
    let from_zero = low <= 0.0 || from_nothing && low < high / 2.0;
    let start = if from_zero { low.min(0.0) } else { (low - (high - low) * 0.08).max(0.0) };
    Axis::linear(start, high + (high - start) * 0.06, from_px, to_px)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_left_out_and_the_rest_is_drawn() {
        let line = |label: &str, points: Vec<(f64, f64)>| MeasuredLine {
            label: label.into(),
            ringed: points.first().copied().into_iter().collect(),
            points,
        };
        let lines = [line("a", vec![(1.0, 90.0), (2.0, f64::INFINITY), (512.0, 2.0)]), line("b", vec![])];
        let plot =
            measured_lines("x", "title", Along::Sizes, ("replicas", "P99"), &lines, Some((1.0, "limit")))
                .unwrap();
        assert!(plot.svg.contains("limit") && !plot.svg.contains("inf") && !plot.svg.contains("NaN"));
        let empty = measured_lines("x", "title", Along::Sizes, ("replicas", "P99"), &[], None).unwrap();
        assert!(empty.svg.contains("nothing finite was measured"));
    }
}
