//! Which share of requests was answered within which time, one curve a policy.
//!
//! Knows sorted latencies and how many requests never came back. Does not know what the latency is of.

use super::axis::{self, Axis};
use super::legend::{Legend, Sample};
use super::sheet::{Mark, Point, Sheet, fit_text};
use super::style::{LineStyle, draw_marker};
use super::{
    FAINT_GRID, GRID, HEIGHT_PX, INK, LEAST_MS, MARGIN_PX, Plot, PlotError, SOFT_INK, TEXT_EM_PX, WIDTH_PX,
    draw_title, draw_upright_ticks, finish,
};

/// Latencies of one policy, in milliseconds.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Curve {
    /// What the legend calls it.
    pub label: String,
    /// Latencies of the requests that completed, sorted; may be empty.
    pub values_ms: Vec<f64>,
    /// Requests that never completed: the curve ends below 100 %.
    pub lost: u64,
}

/// Most points of a curve that is drawn; half of them are spread evenly, half crowd towards the tail.
const MOST_POINTS: usize = 600;
/// Ratio of largest to smallest latency above which the time axis becomes logarithmic.
const LOGARITHMIC_ABOVE: f64 = 30.0;
/// A logarithmic axis shows no more than this below its largest value; what is less lies at its left end.
const WIDEST_RATIO: f64 = 1e6;
/// Shares of requests at which a curve bears markers, before the shift that keeps curves' markers apart.
const MARKERS: usize = 5;
/// The part of the tail that every comparison looks at.
const TAIL: f64 = 0.99;

const LEFT_PX: f64 = 92.0;
const RIGHT_PX: f64 = WIDTH_PX - 72.0;
const TOP_PX: f64 = 92.0;

/// Share of requests (0 to 100 %) over latency. `x_label` says which latency; the ticks bear the unit.
///
/// The line of 99 % is marked, and the legend says where each curve crosses it.
pub fn latency_cdf(name: &str, title: &str, x_label: &str, curves: &[Curve]) -> Result<Plot, PlotError> {
    let curves: Vec<Steps> = curves.iter().map(Steps::of).collect();
    // One curve needs no marker to be told from others.
    let marker = |index: usize| (curves.len() > 1).then_some(index);
    let entries = curves
        .iter()
        .enumerate()
        .map(|(index, curve)| (Sample::Line(style(index), marker(index)), curve.legend_label()));
    let legend = Legend::new(entries.collect())?;
    let height_px = HEIGHT_PX.max(legend.height_px() + 430.0);
    let bottom_px = height_px - legend.height_px() - 92.0;

    let mut sheet = Sheet::new(WIDTH_PX, height_px);
    draw_title(&mut sheet, title)?;
    let y_label = "requests answered within the time (%)";
    sheet.add(Mark::text(y_label, MARGIN_PX, TOP_PX - 26.0, TEXT_EM_PX, SOFT_INK));
    let (x_label, em_px) = fit_text(x_label, TEXT_EM_PX, RIGHT_PX - LEFT_PX)?;
    sheet.add(Mark::text_around(x_label, (LEFT_PX + RIGHT_PX) / 2.0, bottom_px + 50.0, em_px, INK));

    let time_axis = time_axis(&curves);
    let share_axis = Axis::linear(0.0, 1.0, bottom_px, TOP_PX);
    draw_time_grid(&mut sheet, &time_axis, bottom_px)?;
    draw_share_grid(&mut sheet, &share_axis);

    for (index, curve) in curves.iter().enumerate() {
        let path: Vec<Point> = curve
            .path()
            .into_iter()
            .map(|(time_ms, share)| (time_axis.at(time_ms), share_axis.at(share)))
            .collect();
        style(index).draw(&mut sheet, &path);
    }
    for (index, curve) in curves.iter().enumerate().filter(|_| curves.len() > 1) {
        let shift = (index as f64 + 0.5) / curves.len() as f64;
        let shares = (0..MARKERS).map(|number| (number as f64 + shift) / MARKERS as f64 * 0.97);
        let places = shares.filter_map(|share| Some((curve.time_at(share)?, share)));
        for (time_ms, share) in places.chain(curve.percentile(TAIL).map(|time_ms| (time_ms, TAIL))) {
            draw_marker(&mut sheet, index, (time_axis.at(time_ms), share_axis.at(share)));
        }
    }
    if curves.iter().all(|curve| curve.values_ms.is_empty()) {
        let middle = ((LEFT_PX + RIGHT_PX) / 2.0, (TOP_PX + bottom_px) / 2.0);
        sheet.add(Mark::text_around("no request was answered", middle.0, middle.1, TEXT_EM_PX, SOFT_INK));
    }
    legend.draw(&mut sheet, height_px - legend.height_px() - 20.0)?;
    finish(name, &sheet)
}

fn style(index: usize) -> LineStyle {
    LineStyle::nth(index, 2.4)
}

/// A curve whose values are all finite.
struct Steps<'a> {
    label: &'a str,
    values_ms: &'a [f64],
    total: u64,
}

impl<'a> Steps<'a> {
    fn of(curve: &'a Curve) -> Steps<'a> {
        // Infinite latencies sort last; they are requests that never completed.
        let finite = curve.values_ms.iter().rposition(|value| value.is_finite()).map_or(0, |last| last + 1);
        Steps {
            label: &curve.label,
            values_ms: &curve.values_ms[..finite],
            total: curve.lost.saturating_add(curve.values_ms.len() as u64),
        }
    }

    fn legend_label(&self) -> String {
        match (self.total, self.percentile(TAIL)) {
            (0, _) => format!("{} (no requests)", self.label),
            (_, Some(p99_ms)) => format!("{} (P99 {})", self.label, axis::measured_time(p99_ms)),
            (_, None) => format!("{} (P99 not finite)", self.label),
        }
    }

    /// The value at a share of all requests, linear between neighbours as numpy and the tables have it; none
    /// if a lost request has part in it.
    fn percentile(&self, share: f64) -> Option<f64> {
        let place = self.total.checked_sub(1)? as f64 * share;
        let low = *self.values_ms.get(place.floor() as usize)?;
        let high = *self.values_ms.get(place.ceil() as usize)?;
        Some(low + (high - low) * place.fract())
    }

    /// Where the curve passes a share.
    fn time_at(&self, share: f64) -> Option<f64> {
        let rank = (share * self.total as f64).ceil() as usize;
        self.values_ms.get(rank.max(1) - 1).copied()
    }

    /// Corners of the curve as (time, share): exact steps where there are few values, else straight lines
    /// between chosen ones. Where requests were lost it runs on level to the right end.
    fn path(&self) -> Vec<(f64, f64)> {
        if self.total == 0 {
            return vec![];
        }
        let count = self.values_ms.len();
        let share = |answered: usize| answered as f64 / self.total as f64;
        let mut path = vec![(self.values_ms.first().copied().unwrap_or(0.0), 0.0)];
        if count <= MOST_POINTS / 2 {
            for (index, value) in self.values_ms.iter().enumerate() {
                path.push((*value, share(index)));
                path.push((*value, share(index + 1)));
            }
        } else {
            path.extend(chosen(count).into_iter().map(|index| (self.values_ms[index], share(index + 1))));
        }
        if self.total > count as u64 {
            path.push((f64::INFINITY, share(count)));
        }
        path
    }
}

/// Which of many sorted values are drawn. Even steps alone would leave six of them for the last percent.
fn chosen(count: usize) -> Vec<usize> {
    let half = MOST_POINTS / 2;
    let last = count - 1;
    let even = (0..half).map(|number| last * number / (half - 1));
    let to_tail = (0..half).map(|number| {
        let behind = (last as f64).powf(1.0 - number as f64 / (half - 1) as f64);
        last - (behind as usize).min(last)
    });
    let mut indices: Vec<usize> = even.chain(to_tail).collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

fn time_axis(curves: &[Steps]) -> Axis {
    let all = || curves.iter().flat_map(|curve| curve.values_ms.iter().copied());
    let high_ms = all().fold(0.0, f64::max);
    let low_ms = all().fold(high_ms, f64::min).max(0.0);
    let positive_ms = all().filter(|value| *value > 0.0).fold(high_ms, f64::min).max(high_ms / WIDEST_RATIO);
    if high_ms < LEAST_MS {
        return Axis::linear(0.0, 1.0, LEFT_PX, RIGHT_PX);
    }
    if high_ms / positive_ms > LOGARITHMIC_ABOVE {
        return Axis::logarithmic(positive_ms / 1.1, high_ms * 1.15, LEFT_PX, RIGHT_PX);
    }
    let spread_ms = high_ms - low_ms;
    // Far from zero the curves deserve the room; a hair's breadth of noise does not.
    let from_zero = low_ms < high_ms / 2.0 || spread_ms < high_ms / 50.0;
    let start_ms = if from_zero { 0.0 } else { low_ms - spread_ms * 0.05 };
    Axis::linear(start_ms, high_ms + (high_ms - start_ms) * 0.05, LEFT_PX, RIGHT_PX)
}

fn draw_time_grid(sheet: &mut Sheet, axis: &Axis, bottom_px: f64) -> Result<(), PlotError> {
    for tick_ms in axis.minor_ticks() {
        let x = axis.at(tick_ms);
        sheet.add(Mark::line((x, TOP_PX), (x, bottom_px), FAINT_GRID, 1.0));
    }
    let ticks_ms = axis.ticks(10);
    let labels = if axis.minor_ticks().is_empty() {
        axis::linear_time_labels(&ticks_ms)
    } else {
        ticks_ms.iter().map(|tick_ms| axis::time_label(*tick_ms)).collect::<Vec<_>>()
    };
    draw_upright_ticks(sheet, axis, &ticks_ms, &labels, (TOP_PX, bottom_px))
}

fn draw_share_grid(sheet: &mut Sheet, axis: &Axis) {
    for percent in [0, 20, 40, 60, 80, 100] {
        let y = axis.at(f64::from(percent) / 100.0);
        let color = if percent == 0 { SOFT_INK } else { GRID };
        sheet.add(Mark::line((LEFT_PX, y), (RIGHT_PX, y), color, 1.0));
        sheet.add(Mark::text_before(format!("{percent} %"), LEFT_PX - 10.0, y, TEXT_EM_PX, INK));
    }
    // On the right, where no other label stands so close.
    let y = axis.at(TAIL);
    LineStyle::dashed(SOFT_INK, 1.4).draw(sheet, &[(LEFT_PX, y), (RIGHT_PX, y)]);
    sheet.add(Mark::text("99 %", RIGHT_PX + 10.0, y, TEXT_EM_PX, INK));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_its_points() {
        let indices = chosen(1_000_000);
        assert!(indices.len() <= MOST_POINTS);
        assert_eq!((indices[0], indices[indices.len() - 1]), (0, 999_999));
        assert!(indices.iter().filter(|index| **index >= 990_000).count() > 100);
    }

    #[test]
    fn lost_requests_keep_the_curve_below_the_top() {
        let curve = Curve { label: "a".into(), values_ms: vec![1.0, 2.0, f64::INFINITY], lost: 1 };
        let steps = Steps::of(&curve);
        assert_eq!(steps.path().last(), Some(&(f64::INFINITY, 0.5)));
        assert_eq!(steps.percentile(TAIL), None);
        assert_eq!(steps.legend_label(), "a (P99 not finite)");
        assert_eq!(steps.time_at(0.5), Some(2.0));
        assert_eq!(steps.time_at(0.6), None);
    }

    #[test]
    fn percentiles_are_those_of_the_tables() {
        let curve = Curve { label: String::new(), values_ms: vec![1.0, 2.0, 3.0, 4.0], lost: 0 };
        assert!((Steps::of(&curve).percentile(0.9).unwrap() - 3.7).abs() < 1e-12);
    }
}
