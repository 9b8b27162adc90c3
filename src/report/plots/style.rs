//! Colours, dashes and markers that tell curves apart, also for colour-blind eyes and on grey paper.
//!
//! Knows how the n-th curve looks. Does not know what the curve is.

use plotters::style::{RGBColor, WHITE};

use super::sheet::{Mark, Point, Sheet};

/// The colours of Okabe and Ito without yellow, which no one can read on white.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x00, 0x00, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0xe6, 0x9f, 0x00),
];

/// Lengths of dash and gap in pixels, by turns; the first is solid. Their number and that of the colours have
/// no common divisor, so thirty-five curves differ.
const DASHES: [&[f64]; 5] = [&[], &[10.0, 6.0], &[2.5, 4.5], &[12.0, 4.0, 2.5, 4.0], &[20.0, 7.0]];

/// Radius of a marker.
const MARKER_RADIUS_PX: f64 = 5.0;

/// How one curve is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineStyle {
    pub(super) color: RGBColor,
    pub(super) width_px: f64,
    /// Dash and gap by turns; empty is solid.
    pub(super) dash_px: &'static [f64],
}

impl LineStyle {
    /// The style of the n-th curve. Neighbours differ in colour and in dashes.
    pub(super) fn nth(index: usize, width_px: f64) -> LineStyle {
        LineStyle { color: PALETTE[index % PALETTE.len()], width_px, dash_px: DASHES[index % DASHES.len()] }
    }

    /// The style of the n-th line that goes up and down. Dashes of such a line are hard to follow, so they
    /// come in only when the colours are used up.
    pub(super) fn nth_restless(index: usize, width_px: f64) -> LineStyle {
        let round = index / PALETTE.len();
        LineStyle { color: PALETTE[index % PALETTE.len()], width_px, dash_px: DASHES[round % DASHES.len()] }
    }

    pub(super) fn solid(color: RGBColor, width_px: f64) -> LineStyle {
        LineStyle { color, width_px, dash_px: DASHES[0] }
    }

    pub(super) fn dashed(color: RGBColor, width_px: f64) -> LineStyle {
        LineStyle { color, width_px, dash_px: DASHES[1] }
    }

    /// Draws a line through the points.
    pub(super) fn draw(self, sheet: &mut Sheet, points: &[Point]) {
        for piece in dashes(points, self.dash_px) {
            sheet.add(Mark::Line { points: piece, color: self.color, width_px: self.width_px });
        }
    }
}

/// Cuts a path into its dashes.
fn dashes(points: &[Point], pattern_px: &[f64]) -> Vec<Vec<Point>> {
    if pattern_px.is_empty() || points.len() < 2 {
        return if points.len() < 2 { vec![] } else { vec![points.to_vec()] };
    }
    let mut pieces = Vec::new();
    let mut turn = 0;
    let mut left_px = pattern_px[0];
    let mut piece = vec![points[0]];
    for pair in points.windows(2) {
        let mut from = pair[0];
        let mut length_px = (pair[1].0 - from.0).hypot(pair[1].1 - from.1);
        while length_px > left_px {
            let part = left_px / length_px;
            from = (from.0 + (pair[1].0 - from.0) * part, from.1 + (pair[1].1 - from.1) * part);
            length_px -= left_px;
            piece.push(from);
            if turn % 2 == 0 {
                pieces.push(piece);
            }
            piece = vec![from];
            turn = (turn + 1) % pattern_px.len();
            left_px = pattern_px[turn];
        }
        left_px -= length_px;
        piece.push(pair[1]);
    }
    if turn % 2 == 0 && piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

/// Draws the marker of the n-th curve: a filled shape with a white rim, so that it stands out from its line.
pub(super) fn draw_marker(sheet: &mut Sheet, index: usize, at: Point) {
    let color = PALETTE[index % PALETTE.len()];
    for (radius_px, color) in [(MARKER_RADIUS_PX + 1.5, WHITE), (MARKER_RADIUS_PX, color)] {
        let points = marker_outline(index, at, radius_px);
        sheet.add(Mark::Area { points, color, opacity: 1.0 });
    }
}

/// Corners of the n-th shape, as angles on a circle or steps on a grid of thirds.
fn marker_outline(index: usize, at: Point, radius_px: f64) -> Vec<Point> {
    let regular = |corners: usize, turn: f64, stretch: f64| -> Vec<Point> {
        let corner = |number: usize| {
            let angle = std::f64::consts::TAU * (number as f64 / corners as f64 + turn);
            (at.0 + radius_px * stretch * angle.sin(), at.1 - radius_px * stretch * angle.cos())
        };
        (0..corners).map(corner).collect()
    };
    match index % 6 {
        0 => regular(24, 0.0, 1.0),
        1 => regular(4, 0.125, 1.25),
        2 => regular(3, 0.0, 1.3),
        3 => regular(4, 0.0, 1.3),
        4 => regular(3, 0.5, 1.3),
        _ => {
            let arm = radius_px * 0.4;
            let tip = radius_px * 1.15;
            [(-arm, -tip), (arm, -tip), (arm, -arm), (tip, -arm), (tip, arm), (arm, arm)]
                .into_iter()
                .chain([(arm, tip), (-arm, tip), (-arm, arm), (-tip, arm), (-tip, -arm), (-arm, -arm)])
                .map(|(x, y)| (at.0 + x, at.1 + y))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_follow_the_path_around_corners() {
        let pieces = dashes(&[(0.0, 0.0), (4.0, 0.0), (4.0, 10.0)], &[6.0, 2.0]);
        assert_eq!(pieces, vec![vec![(0.0, 0.0), (4.0, 0.0), (4.0, 2.0)], vec![(4.0, 4.0), (4.0, 10.0)]]);
        assert!(dashes(&[(1.0, 1.0)], &[6.0, 2.0]).is_empty());
        assert_eq!(dashes(&[(0.0, 0.0), (1.0, 0.0)], &[]).len(), 1);
    }
}
