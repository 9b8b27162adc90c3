//! A sheet of marks at pixel places, drawn twice: once as SVG, once as PNG.
//!
//! Knows lines, areas, dots and text, and how `plotters` draws them. Does not know axes or data. Both formats
//! are drawn on a grid three times finer than the picture, because `plotters` places marks on whole pixels:
//! the SVG keeps the fine grid as its inner coordinates, the PNG is averaged down, which also smooths edges.

use std::sync::OnceLock;

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Polygon, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, ShapeStyle, TextStyle, WHITE, register_font};

use super::{PlotError, png};

/// Fine grid points to a pixel.
const FINE: u32 = 3;
/// Name under which the built-in font is registered. An SVG carries it as a CSS list, so a reader's machine
/// that has no DejaVu takes Verdana, of the same width, or whatever it has.
const FONT_FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";
/// The SVG writer of `plotters` divides a font's size by this to get the em.
const SVG_SIZE_TO_EM: f64 = 1.24;
/// DejaVu Sans from descender to ascender in ems, which is what the PNG rasteriser takes for a size.
const PNG_SIZE_TO_EM: f64 = 1.164;
/// How far below its anchor the PNG rasteriser must start to centre small letters there, as SVG does.
const PNG_DROP_EM: f64 = 0.16;
/// Text is never made smaller than this.
const LEAST_EM_PX: f64 = 11.0;

/// A place in pixels, from the top left corner.
pub(super) type Point = (f64, f64);

/// One thing on a sheet.
#[derive(Clone)]
pub(super) enum Mark {
    /// A solid line through points.
    Line { points: Vec<Point>, color: RGBColor, width_px: f64 },
    /// A filled outline.
    Area { points: Vec<Point>, color: RGBColor, opacity: f64 },
    /// One line of text, centred upon `at` in height.
    Text { text: String, at: Point, em_px: f64, color: RGBColor, side: HPos },
}

impl Mark {
    /// Text that starts at a place.
    pub(super) fn text(text: impl Into<String>, x: f64, y: f64, em_px: f64, color: RGBColor) -> Mark {
        Mark::Text { text: text.into(), at: (x, y), em_px, color, side: HPos::Left }
    }

    /// Text that ends at a place.
    pub(super) fn text_before(text: impl Into<String>, x: f64, y: f64, em_px: f64, color: RGBColor) -> Mark {
        Mark::Text { text: text.into(), at: (x, y), em_px, color, side: HPos::Right }
    }

    /// Text around a place.
    pub(super) fn text_around(text: impl Into<String>, x: f64, y: f64, em_px: f64, color: RGBColor) -> Mark {
        Mark::Text { text: text.into(), at: (x, y), em_px, color, side: HPos::Center }
    }

    /// A straight line.
    pub(super) fn line(from: Point, to: Point, color: RGBColor, width_px: f64) -> Mark {
        Mark::Line { points: vec![from, to], color, width_px }
    }

    /// A filled rectangle between two opposite corners.
    pub(super) fn bar(from: Point, to: Point, color: RGBColor) -> Mark {
        let points = vec![from, (to.0, from.1), to, (from.0, to.1)];
        Mark::Area { points, color, opacity: 1.0 }
    }
}

/// Marks in the order in which they are drawn.
#[derive(Clone)]
pub(super) struct Sheet {
    width_px: u32,
    height_px: u32,
    marks: Vec<Mark>,
}

impl Sheet {
    pub(super) fn new(width_px: f64, height_px: f64) -> Sheet {
        Sheet { width_px: width_px as u32, height_px: height_px as u32, marks: Vec::new() }
    }

    pub(super) fn add(&mut self, mark: Mark) {
        self.marks.push(mark);
    }

    /// An SVG document of the sheet.
    pub(super) fn to_svg(&self) -> Result<String, PlotError> {
        load_font()?;
        let (width, height) = (self.width_px * FINE, self.height_px * FINE);
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
            self.draw_on(&area, Format::Svg)?;
        }
        // The document opens with the size of the fine grid; only the view box shall keep it.
        let fine = format!("width=\"{width}\" height=\"{height}\"");
        let shown = format!("width=\"{}\" height=\"{}\"", self.width_px, self.height_px);
        Ok(svg.replacen(&fine, &shown, 1))
    }

    /// A PNG file of the sheet.
    pub(super) fn to_png(&self) -> Result<Vec<u8>, PlotError> {
        load_font()?;
        let (width, height) = (self.width_px * FINE, self.height_px * FINE);
        let mut fine = vec![0; width as usize * height as usize * 3];
        {
            let area = BitMapBackend::with_buffer(&mut fine, (width, height)).into_drawing_area();
            self.draw_on(&area, Format::Png)?;
        }
        Ok(png::encode(&average(&fine, width as usize), self.width_px, self.height_px)?)
    }

    fn draw_on<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, plotters::coord::Shift>,
        format: Format,
    ) -> Result<(), PlotError> {
        let failed = |error: &dyn std::fmt::Display| PlotError::Drawing(error.to_string());
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        for mark in &self.marks {
            match mark {
                Mark::Line { points, color, width_px } => {
                    let style = ShapeStyle::from(color).stroke_width(fine(*width_px).max(1) as u32);
                    for piece in format.pieces(points, *width_px) {
                        let path: Vec<_> = piece.iter().map(on_grid).collect();
                        area.draw(&PathElement::new(path, style)).map_err(|error| failed(&error))?;
                    }
                }
                Mark::Area { points, color, opacity } => {
                    let outline: Vec<_> = points.iter().map(on_grid).collect();
                    let polygon = Polygon::new(outline, color.mix(*opacity).filled());
                    area.draw(&polygon).map_err(|error| failed(&error))?;
                }
                Mark::Text { text, at, em_px, color, side } => {
                    let (size_to_em, drop_em) = format.text_shape();
                    let font = (FONT_FAMILY, em_px * size_to_em * f64::from(FINE)).into_font();
                    let style = TextStyle::from(font).color(color).pos(Pos::new(*side, VPos::Center));
                    let place = on_grid(&(at.0, at.1 + em_px * drop_em));
                    area.draw(&Text::new(printable(text), place, style)).map_err(|error| failed(&error))?;
                }
            }
        }
        area.present().map_err(|error| failed(&error))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

impl Format {
    /// Size of a font over its em, and how far below its anchor text is drawn.
    fn text_shape(self) -> (f64, f64) {
        match self {
            Format::Svg => (SVG_SIZE_TO_EM, 0.0),
            Format::Png => (PNG_SIZE_TO_EM, PNG_DROP_EM),
        }
    }

    /// The lines that draw a path.
    ///
    /// The PNG rasteriser joins segments with mitres of any length, so a narrow peak would grow a spike. It
    /// gets every segment alone, lengthened at inner corners by half the width, which closes right angles.
    fn pieces(self, points: &[Point], width_px: f64) -> Vec<Vec<Point>> {
        if self == Format::Svg {
            return vec![points.to_vec()];
        }
        let last = points.len().saturating_sub(2);
        let lengthened = |(index, pair): (usize, &[Point])| {
            let (from, to) = (pair[0], pair[1]);
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            if length == 0.0 {
                return vec![];
            }
            let along =
                ((to.0 - from.0) / length * width_px / 2.0, (to.1 - from.1) / length * width_px / 2.0);
            let start = if index == 0 { from } else { (from.0 - along.0, from.1 - along.1) };
            let end = if index == last { to } else { (to.0 + along.0, to.1 + along.1) };
            vec![start, end]
        };
        points.windows(2).enumerate().map(lengthened).filter(|piece| !piece.is_empty()).collect()
    }
}

/// Width of a line of text.
pub(super) fn text_width_px(text: &str, em_px: f64) -> Result<f64, PlotError> {
    load_font()?;
    let font = (FONT_FAMILY, em_px * PNG_SIZE_TO_EM * f64::from(FINE)).into_font();
    let ((left, _), (right, _)) = font.layout_box(&printable(text)).map_err(|_| PlotError::Font)?;
    Ok(f64::from(right - left) / f64::from(FINE))
}

/// The text in a size at which it fits, shortened only where even the smallest size is too wide.
pub(super) fn fit_text(text: &str, em_px: f64, most_px: f64) -> Result<(String, f64), PlotError> {
    let mut em_px = em_px;
    while text_width_px(text, em_px)? > most_px && em_px > LEAST_EM_PX {
        em_px = (em_px - 1.0).max(LEAST_EM_PX);
    }
    let mut shown = text.to_string();
    let mut kept: Vec<char> = text.chars().collect();
    while text_width_px(&shown, em_px)? > most_px && kept.pop().is_some() {
        shown = kept.iter().collect::<String>() + "…";
    }
    Ok((shown, em_px))
}

/// The text without control characters, which XML does not allow.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Makes the built-in font known to `plotters`, once.
fn load_font() -> Result<(), PlotError> {
    static LOADED: OnceLock<bool> = OnceLock::new();
    let load = || register_font(FONT_FAMILY, FontStyle::Normal, dejavu::sans::regular()).is_ok();
    if *LOADED.get_or_init(load) { Ok(()) } else { Err(PlotError::Font) }
}

fn fine(px: f64) -> i32 {
    (px * f64::from(FINE)).round() as i32
}

fn on_grid(point: &Point) -> (i32, i32) {
    (fine(point.0), fine(point.1))
}

/// Each pixel as the mean of its fine pixels: first rows are summed, which goes many bytes at a time, then their columns.
fn average(fine: &[u8], fine_width: usize) -> Vec<u8> {
    const SIDE: usize = FINE as usize;
    let row_bytes = fine_width * 3;
    let mut pixels = Vec::with_capacity(fine.len() / (SIDE * SIDE));
    let mut sums = vec![0u16; row_bytes];
    for rows in fine.chunks_exact(row_bytes * SIDE) {
        sums.fill(0);
        for row in rows.chunks_exact(row_bytes) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += u16::from(*value);
            }
        }
        for columns in sums.as_chunks::<{ SIDE * 3 }>().0 {
            for channel in 0..3 {
                let sum: u16 = columns.iter().skip(channel).step_by(3).sum();
                pixels.push((u32::from(sum) / (FINE * FINE)) as u8);
            }
        }
    }
    pixels
}
