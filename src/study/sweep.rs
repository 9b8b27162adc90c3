//! A scenario at many settings: a grid, or a seeded Latin hypercube, of any of its keys.
//!
//! Knows keys and the values they take, as texts. A cell is one value of each; all policies run on it, on the same requests, and every
//! cell starts from the scenario's own seed (common random numbers). Does not know where results are kept.

use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::random::{Purpose, Seed};

/// A key and what it is set to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// A key of the scenario, such as `workload.rate_scale`.
    pub key: String,
    /// Its values.
    pub values: Values,
}

/// The values of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Values {
    /// One after the other.
    List(Vec<String>),
    /// Anything between two numbers, ends included; only a Latin hypercube can draw from it.
    Between {
        /// The least.
        low: f64,
        /// The greatest.
        high: f64,
        /// Whether all are whole numbers.
        whole: bool,
    },
}

/// Values that a grid may have along one key, and in all.
const MOST_CELLS: usize = 1_000_000;

impl Axis {
    /// From `KEY=A,B,C`, `KEY=LOW..HIGH/COUNT` (evenly spaced, or by equal ratios with `/COUNTlog`), or `KEY=LOW..HIGH`.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str) -> Result<Axis, String> {
        let expected = |what: &str| {
            format!(
                "expected KEY=A,B,C or KEY=LOW..HIGH/COUNT, such as workload.rate_scale=0.5..2/7: {what} in `{text}`"
            )
        };
        let (key, values) = text.split_once('=').ok_or_else(|| expected("there is no `=`"))?;
        let key = key.trim();
        if key.is_empty() {
            return Err(expected("there is no key"));
        }
        let axis = |values| Ok(Axis { key: key.to_string(), values });
        let Some((low, rest)) = values.split_once("..") else {
            let list = parted(values);
            if list.iter().any(String::is_empty) {
                return Err(expected("a value is empty"));
            }
            for (index, value) in list.iter().enumerate() {
                if list[..index].contains(value) {
                    return Err(expected(&format!("`{value}` is there twice")));
                }
            }
            return axis(Values::List(list));
        };
        let (high, count) = match rest.split_once('/') {
            Some((high, count)) => (high, Some(count.trim())),
            None => (rest, None),
        };
        let number = |text: &str| {
            let value = text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
            value.ok_or_else(|| expected(&format!("`{}` is no number", text.trim())))
        };
        let whole = [low, high].iter().all(|text| text.trim().parse::<i64>().is_ok());
        let (low, high) = (number(low)?, number(high)?);
        if high <= low {
            return Err(expected("the range is empty"));
        }
        let Some(count) = count else { return axis(Values::Between { low, high, whole }) };
        let logarithmic = count.ends_with("log");
        let count: usize = count.trim_end_matches("log").trim().parse().unwrap_or(0);
        if !(2..=10_000).contains(&count) {
            return Err(expected("the count must be 2 to 10000"));
        }
        if logarithmic && low <= 0.0 {
            return Err(expected("equal ratios need a range above 0"));
        }
        let at = |place: usize| {
            let part = place as f64 / (count - 1) as f64;
            written(
                if logarithmic { low * (high / low).powf(part) } else { low + (high - low) * part },
                whole,
            )
        };
        let list: Vec<String> = (0..count).map(at).collect();
        let exact = |place: usize| {
            let part = place as f64 / (count - 1) as f64;
            let value = if logarithmic { low * (high / low).powf(part) } else { low + (high - low) * part };
            (value - value.round()).abs() < 1e-9 * value.abs().max(1.0)
        };
        if whole && !(0..count).all(exact) {
            return Err(expected(&format!(
                "{count} values from {low} to {high} are not all whole numbers; write {low:?}..{high:?}/{count} where fractions are \
                 meant, or a list,"
            )));
        }
        axis(Values::List(list))
    }
}

/// At commas that stand in no bracket and no quotes.
fn parted(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("there is a part").push(character);
    }
    parts.into_iter().map(|part| part.trim().to_string()).collect()
}

/// A number as a scenario has it: twelve digits are enough for a setting, and read better than seventeen.
fn written(value: f64, whole: bool) -> String {
    if whole {
        return format!("{}", value.round() as i64);
    }
    let rounded: f64 = format!("{value:.11e}").parse().unwrap_or(value);
    format!("{rounded:?}")
}

/// One setting: a value of each key, in order.
pub type Cell = Vec<String>;

/// Every combination; the last key varies fastest.
///
/// # Errors
/// If a key has a range without a count, or there are too many.
pub fn grid(axes: &[Axis]) -> Result<Vec<Cell>, String> {
    let mut cells: Vec<Cell> = vec![Vec::new()];
    for axis in axes {
        let Values::List(values) = &axis.values else {
            return Err(format!(
                "{}: a grid needs to know how many values there are: write LOW..HIGH/COUNT, or ask for --latin-hypercube N",
                axis.key
            ));
        };
        if cells.len().saturating_mul(values.len()) > MOST_CELLS {
            return Err(format!("a sweep has at most {MOST_CELLS} cells"));
        }
        let longer = |cell: &Cell| {
            let cell = cell.clone();
            values
                .iter()
                .map(move |value| [&cell[..], std::slice::from_ref(value)].concat())
                .collect::<Vec<Cell>>()
        };
        cells = cells.iter().flat_map(longer).collect();
    }
    Ok(cells)
}

/// `count` cells of which each key takes each of `count` equal stretches of its range once, in an order of its own.
pub fn latin_hypercube(axes: &[Axis], count: usize, seed: Seed) -> Vec<Cell> {
    let column = |(index, axis): (usize, &Axis)| {
        let mut stream = seed.stream(Purpose::Sweep, index as u64);
        let mut places: Vec<usize> = (0..count).collect();
        places.shuffle(&mut stream);
        let of = |place: usize| {
            let part = (place as f64 + stream.random::<f64>()) / count as f64;
            match &axis.values {
                Values::List(values) => {
                    values[((part * values.len() as f64) as usize).min(values.len() - 1)].clone()
                }
                // Whole numbers each have the same room.
                Values::Between { low, high, whole: true } => {
                    written((low - 0.5 + (high - low + 1.0) * part).clamp(*low, *high), true)
                }
                Values::Between { low, high, whole: false } => written(low + (high - low) * part, false),
            }
        };
        places.into_iter().map(of).collect::<Vec<String>>()
    };
    let columns: Vec<Vec<String>> = axes.iter().enumerate().map(column).collect();
    (0..count).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

/// Places of points, ascending in x, that nobody beats in both: of lower x and lower y.
pub fn pareto_front(points: &[(f64, f64)]) -> Vec<usize> {
    let beaten = |own: &(f64, f64)| {
        points
            .iter()
            .any(|other| other.0 <= own.0 && other.1 <= own.1 && (other.0 < own.0 || other.1 < own.1))
    };
    let mut front: Vec<usize> =
        (0..points.len()).filter(|&place| points[place].1.is_finite() && !beaten(&points[place])).collect();
    front.sort_by(|&a, &b| points[a].0.total_cmp(&points[b].0));
    front
}

/// The knee of a rising curve, ascending in x: the point farthest below the line between its ends when both directions have the
/// same length (Satopaa and others, Finding a Kneedle in a Haystack, 2011). None of fewer than four points, or where it does not
/// bend upwards.
pub fn knee(points: &[(f64, f64)]) -> Option<usize> {
    let (first, last) = (points.first()?, points.last()?);
    let (width, height) = (last.0 - first.0, last.1 - first.1);
    if points.len() < 4 || width <= 0.0 || height <= 0.0 || !height.is_finite() {
        return None;
    }
    let below = |&(x, y): &(f64, f64)| (x - first.0) / width - (y - first.1) / height;
    let places = 1..points.len() - 1;
    let best = places.max_by(|&a, &b| below(&points[a]).total_cmp(&below(&points[b])))?;
    (below(&points[best]) > 0.1).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        match Axis::parse(text).unwrap().values {
            Values::List(values) => values,
            Values::Between { .. } => panic!("a list"),
        }
    }

    #[test]
    fn values_are_lists_or_ranges() {
        assert_eq!(list("a.b=1,2, 3"), ["1", "2", "3"]);
        assert_eq!(list("a={ x = 1, y = [2, 3] },\"u, v\""), ["{ x = 1, y = [2, 3] }", "\"u, v\""]);
        assert_eq!(list("rate=0.5..2/4"), ["0.5", "1.0", "1.5", "2.0"]);
        assert_eq!(list("count=1..10/4"), ["1", "4", "7", "10"]);
        assert_eq!(list("rate=1.0..2.0/5"), ["1.0", "1.25", "1.5", "1.75", "2.0"]);
        assert_eq!(list("n=1..1000/4log"), ["1", "10", "100", "1000"]);
        assert_eq!(list("x=0.1..0.3/3"), ["0.1", "0.2", "0.3"]);
        for wrong in [
            "a",
            "=1",
            "a=1..",
            "a=3..1/2",
            "a=1..2/1",
            "a=0..2/3log",
            "a=1,,2",
            "a=1,1",
            "a=x..2/3",
            "a=1..2/5",
        ] {
            let error = Axis::parse(wrong).unwrap_err();
            assert!(error.contains("expected KEY=A,B,C") && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_grid_has_every_combination_once() {
        let axes = ["a=1,2", "b=x,y,z"].map(|text| Axis::parse(text).unwrap());
        let cells = grid(&axes).unwrap();
        assert_eq!(cells.len(), 6);
        assert_eq!(
            (&cells[0][..], &cells[1][..], &cells[5][..]),
            (
                &["1", "x"].map(String::from)[..],
                &["1", "y"].map(String::from)[..],
                &["2", "z"].map(String::from)[..]
            )
        );
        assert!(grid(&[Axis::parse("a=1..2").unwrap()]).unwrap_err().contains("LOW..HIGH/COUNT"));
    }

    #[test]
    fn a_latin_hypercube_meets_every_stretch_of_every_key_once() {
        let axes = ["a=0..1000", "b=0.0..1.0", "c=x,y"].map(|text| Axis::parse(text).unwrap());
        let cells = latin_hypercube(&axes, 50, Seed(3));
        let mut stretches: Vec<usize> =
            cells.iter().map(|cell| ((cell[1].parse::<f64>().unwrap() * 50.0) as usize).min(49)).collect();
        stretches.sort_unstable();
        assert_eq!(stretches, (0..50).collect::<Vec<_>>());
        assert_eq!(cells.iter().filter(|cell| cell[2] == "x").count(), 25);
        assert!(cells.iter().all(|cell| cell[0].parse::<i64>().is_ok_and(|a| (0..=1000).contains(&a))));
        assert_eq!(cells, latin_hypercube(&axes, 50, Seed(3)));
        assert_ne!(cells, latin_hypercube(&axes, 50, Seed(4)));
    }

    #[test]
    fn fronts_and_knees_are_found() {
        let points = [(1.0, 9.0), (2.0, 4.0), (2.0, 5.0), (3.0, 4.5), (4.0, 1.0), (0.5, f64::INFINITY)];
        assert_eq!(pareto_front(&points), [0, 1, 4]);
        // A queue's time against its load: 1 / (1 - x).
        let queue: Vec<(f64, f64)> =
            (1..=9).map(|tenth| f64::from(tenth) / 10.0).map(|x| (x, 1.0 / (1.0 - x))).collect();
        assert_eq!(knee(&queue), Some(6));
        let straight: Vec<(f64, f64)> = (0..9).map(|x| (f64::from(x), f64::from(x))).collect();
        assert_eq!(knee(&straight), None);
        assert_eq!(knee(&queue[..3]), None);
    }
}
