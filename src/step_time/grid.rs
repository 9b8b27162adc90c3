//! Measured values at the crossings of some axes.
//!
//! Knows places and values. Does not know what was measured.

/// Where `x` lies on an axis: the index of the value at or below it, and the share of the way to the next. Places
/// outside are taken to the nearest end.
pub(crate) fn bracket(axis: &[f64], x: f64) -> (usize, f64) {
    let below = axis.partition_point(|value| *value <= x).saturating_sub(1);
    match axis.get(below + 1) {
        None => (below, 0.0),
        Some(next) => (below, ((x - axis[below]) / (next - axis[below])).clamp(0.0, 1.0)),
    }
}

/// Values at all crossings of some axes; between them straight along each axis, outside as at the nearest end.
#[derive(Clone, Debug)]
pub(super) struct Grid<const AXES: usize> {
    axes: [Vec<f64>; AXES],
    /// The last axis runs fastest.
    values: Vec<f64>,
}

impl<const AXES: usize> Grid<AXES> {
    /// The largest complete grid among scattered points: as long as crossings are absent, the value of an axis that
    /// lacks the largest share of its own is given up. None if nothing is left.
    pub(super) fn new(points: Vec<([f64; AXES], f64)>) -> Option<Grid<AXES>> {
        let mut points = points;
        loop {
            let axes: [Vec<f64>; AXES] = std::array::from_fn(|axis| {
                let mut values: Vec<f64> = points.iter().map(|(place, _)| place[axis]).collect();
                values.sort_by(f64::total_cmp);
                values.dedup();
                values
            });
            let crossings: usize = axes.iter().map(Vec::len).product();
            if crossings == 0 {
                return None;
            }
            if points.len() >= crossings {
                return Some(Grid::complete(axes, &points));
            }
            let mut worst = (f64::INFINITY, 0, 0.0);
            for (axis, values) in axes.iter().enumerate() {
                for value in values {
                    let there = points.iter().filter(|(place, _)| place[axis] == *value).count();
                    let share = (there * values.len()) as f64 / crossings as f64;
                    if share < worst.0 {
                        worst = (share, axis, *value);
                    }
                }
            }
            points.retain(|(place, _)| place[worst.1] != worst.2);
        }
    }

    fn complete(axes: [Vec<f64>; AXES], points: &[([f64; AXES], f64)]) -> Grid<AXES> {
        let mut values = vec![1.0; axes.iter().map(Vec::len).product()];
        for (place, value) in points {
            let index = axes
                .iter()
                .zip(place)
                .fold(0, |index, (axis, x)| index * axis.len() + axis.partition_point(|value| value < x));
            values[index] = *value;
        }
        Grid { axes, values }
    }

    pub(super) fn at(&self, place: [f64; AXES]) -> f64 {
        let brackets: [(usize, f64); AXES] =
            std::array::from_fn(|axis| bracket(&self.axes[axis], place[axis]));
        let mut sum = 0.0;
        for corner in 0..1usize << AXES {
            let (mut index, mut weight) = (0, 1.0);
            for (axis, (below, share)) in brackets.iter().enumerate() {
                let above = corner >> axis & 1 == 1;
                weight *= if above { *share } else { 1.0 - share };
                index = index * self.axes[axis].len()
                    + (below + usize::from(above)).min(self.axes[axis].len() - 1);
            }
            if weight > 0.0 {
                sum += weight * self.values[index];
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_stay_inside() {
        let axis = [1.0, 2.0, 4.0];
        assert_eq!(bracket(&axis, 0.0), (0, 0.0));
        assert_eq!(bracket(&axis, 3.0), (1, 0.5));
        assert_eq!(bracket(&axis, 9.0), (2, 0.0));
    }

    #[test]
    fn a_grid_gives_up_what_lacks_most_and_is_straight_between() {
        let mut points: Vec<([f64; 2], f64)> = Vec::new();
        for x in [1.0, 2.0, 4.0] {
            for y in [10.0, 30.0] {
                points.push(([x, y], x * y));
            }
        }
        points.push(([3.0, 10.0], 999.0));
        let grid = Grid::new(points).unwrap();
        assert_eq!(grid.axes[0], [1.0, 2.0, 4.0]);
        assert_eq!(grid.at([3.0, 20.0]), 60.0);
        assert_eq!(grid.at([0.0, 50.0]), 30.0);
        assert!(Grid::<2>::new(Vec::new()).is_none());
    }
}
