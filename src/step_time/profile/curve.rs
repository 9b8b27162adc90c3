//! Straight lines between measured points.
//!
//! Knows one axis. Does not know what was measured.

/// Measured values along one axis, in its order; at least one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// A curve through these points; of several at one place the last counts. None without points.
    pub(crate) fn through(points: impl IntoIterator<Item = (f64, f64)>) -> Option<Curve> {
        let mut points: Vec<(f64, f64)> = points.into_iter().collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = later.1;
            }
            same
        });
        (!points.is_empty()).then_some(Curve { points })
    }

    /// The last place where something was measured.
    pub(crate) fn end(&self) -> f64 {
        self.points[self.points.len() - 1].0
    }

    /// The value at `x`: straight between the points, level before the first, along the last two behind them,
    /// but never below the last.
    pub(crate) fn at(&self, x: f64) -> f64 {
        let points = &self.points;
        let behind = points.partition_point(|point| point.0 <= x);
        if behind == 0 {
            return points[0].1;
        }
        if behind == points.len() {
            let last = points[behind - 1];
            let Some(before) = points.len().checked_sub(2).map(|index| points[index]) else { return last.1 };
            let slope = ((last.1 - before.1) / (last.0 - before.0)).max(0.0);
            return last.1 + slope * (x - last.0);
        }
        let (left, right) = (points[behind - 1], points[behind]);
        left.1 + (right.1 - left.1) * (x - left.0) / (right.0 - left.0)
    }
}

impl Curve {
    /// The value at `x` of something that rises in steps right behind measured points: where two of them are at most
    /// `tread` apart, all between them costs as the later; elsewhere as [`Curve::at`].
    pub(crate) fn stair_at(&self, x: f64, tread: f64) -> f64 {
        let behind = self.points.partition_point(|point| point.0 < x);
        match (behind.checked_sub(1).and_then(|index| self.points.get(index)), self.points.get(behind)) {
            (Some(left), Some(right)) if right.0 - left.0 <= tread => right.1,
            _ => self.at(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn straight_between_level_before_along_behind() {
        let curve = Curve::through([(4.0, 10.0), (1.0, 4.0), (2.0, 6.0)]).unwrap();
        assert_eq!(curve.at(0.5), 4.0);
        assert_eq!(curve.at(1.0), 4.0);
        assert_eq!(curve.at(3.0), 8.0);
        assert_eq!(curve.at(4.0), 10.0);
        assert_eq!(curve.at(6.0), 14.0);
        assert!(Curve::through([]).is_none());
    }

    #[test]
    fn stairs_cost_as_their_upper_end_unless_they_are_wide() {
        let curve = Curve::through([(16.0, 1.0), (32.0, 3.0), (128.0, 5.0)]).unwrap();
        assert_eq!(curve.stair_at(16.0, 16.0), 1.0);
        assert_eq!(curve.stair_at(17.0, 16.0), 3.0);
        assert_eq!(curve.stair_at(32.0, 16.0), 3.0);
        assert_eq!(curve.stair_at(80.0, 16.0), 4.0);
    }

    #[test]
    fn one_point_is_level_and_noise_never_falls_behind_the_end() {
        assert_eq!(Curve::through([(8.0, 3.0)]).unwrap().at(100.0), 3.0);
        assert_eq!(Curve::through([(1.0, 3.0), (2.0, 2.0)]).unwrap().at(100.0), 2.0);
    }
}
