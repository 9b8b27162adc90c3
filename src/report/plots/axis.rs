//! Values to pixels, and ticks that people would choose.
//!
//! Knows linear and logarithmic scales and how to write numbers. Does not draw.

/// One direction of a plot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    from_px: f64,
    to_px: f64,
}

impl Axis {
    /// An even scale; `high` must be above `low`, or it is raised.
    pub(super) fn linear(low: f64, high: f64, from_px: f64, to_px: f64) -> Axis {
        let high = if high > low { high } else { low + 1.0 };
        Axis { low, high, logarithmic: false, from_px, to_px }
    }

    /// A scale of equal ratios; both ends must be positive, or they are raised.
    pub(super) fn logarithmic(low: f64, high: f64, from_px: f64, to_px: f64) -> Axis {
        let low = low.max(f64::MIN_POSITIVE);
        let high = if high > low { high } else { low * 10.0 };
        Axis { low, high, logarithmic: true, from_px, to_px }
    }

    /// Where a value lies; values beyond an end lie at that end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let part = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from_px + part * (self.to_px - self.from_px)
    }

    /// Values for labelled ticks, at most about `most` on a linear scale.
    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        if self.logarithmic {
            let mantissas: &[f64] = if self.decades() <= 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            return self.of_each_decade(mantissas);
        }
        let step = nice_step((self.high - self.low) / most as f64);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|number| number as f64 * step).collect()
    }

    /// Values for faint lines between the ticks; none on a linear scale.
    pub(super) fn minor_ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            self.of_each_decade(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
        } else {
            vec![]
        }
    }

    fn decades(&self) -> f64 {
        (self.high / self.low).log10()
    }

    fn of_each_decade(&self, mantissas: &[f64]) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        (first..=last)
            .flat_map(|decade| mantissas.iter().map(move |mantissa| mantissa * 10f64.powi(decade)))
            .filter(|value| (self.low..=self.high).contains(value))
            .collect()
    }
}

/// The least of 1, 2 and 5 times a power of ten that is no less than a value.
pub(super) fn nice_step(least: f64) -> f64 {
    let power = 10f64.powi(least.log10().floor() as i32);
    let mantissa = least / power;
    let nice = [1.0, 2.0, 5.0].into_iter().find(|nice| mantissa <= nice + 1e-9).unwrap_or(10.0);
    nice * power
}

/// A number with a comma between thousands.
pub(super) fn thousands(value: f64, decimals: usize) -> String {
    let plain = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), None), |(w, f)| (w, Some(f)));
    let mut text = String::new();
    if value < 0.0 {
        text.push('-');
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// A number with as many decimals as it needs, up to nine.
pub(super) fn plain_number(value: f64) -> String {
    let text = thousands(value, 9);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Labels of time ticks on a linear scale, all in one unit: seconds where the scale is long, or milliseconds.
pub(super) fn linear_time_labels(ticks_ms: &[f64]) -> Vec<String> {
    let long = ticks_ms.iter().any(|tick_ms| *tick_ms >= 2_000.0);
    let label = |tick_ms: &f64| match (*tick_ms == 0.0, long) {
        (true, _) => "0".to_string(),
        (false, true) => format!("{} s", plain_number(tick_ms / 1_000.0)),
        (false, false) => format!("{} ms", plain_number(*tick_ms)),
    };
    ticks_ms.iter().map(label).collect()
}

/// Label of a time tick on a logarithmic scale, in the unit that keeps it short.
pub(super) fn time_label(time_ms: f64) -> String {
    if time_ms >= 1_000.0 {
        format!("{} s", plain_number(time_ms / 1_000.0))
    } else {
        format!("{} ms", plain_number(time_ms))
    }
}

/// A measured time to three digits, in the unit that keeps it short.
pub(super) fn measured_time(time_ms: f64) -> String {
    let (value, unit) = if time_ms >= 999.5 { (time_ms / 1_000.0, "s") } else { (time_ms, "ms") };
    let decimals = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{} {unit}", thousands(value, decimals))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(Axis::linear(0.0, 100.0, 0.0, 1.0).ticks(5), vec![0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let ticks = Axis::logarithmic(9.0, 1_100.0, 0.0, 1.0).ticks(5);
        assert_eq!(ticks, vec![10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0]);
        assert_eq!(nice_step(0.3), 0.5);
        assert_eq!(nice_step(20.0), 20.0);
        assert_eq!(nice_step(7.0), 10.0);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(thousands(1_234_567.0, 0), "1,234,567");
        assert_eq!(thousands(-0.25, 2), "-0.25");
        assert_eq!(plain_number(0.30000000000000004), "0.3");
        assert_eq!(linear_time_labels(&[0.0, 500.0, 1_000.0]), ["0", "500 ms", "1,000 ms"]);
        assert_eq!(linear_time_labels(&[0.0, 1_500.0, 3_000.0]), ["0", "1.5 s", "3 s"]);
        assert_eq!(time_label(500.0), "500 ms");
        assert_eq!(time_label(20_000.0), "20 s");
        assert_eq!(measured_time(999.7), "1.00 s");
        assert_eq!(measured_time(42.123), "42.1 ms");
        assert_eq!(measured_time(1_234_000.0), "1,234 s");
    }

    #[test]
    fn values_beyond_the_ends_stay_inside() {
        let axis = Axis::logarithmic(1.0, 100.0, 10.0, 30.0);
        assert_eq!(axis.at(0.0), 10.0);
        assert_eq!(axis.at(1e9), 30.0);
        assert!((axis.at(10.0) - 20.0).abs() < 1e-9);
        assert_eq!(Axis::linear(3.0, 3.0, 0.0, 1.0).at(3.0), 0.0);
    }
}
