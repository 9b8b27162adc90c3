//! Before, during and after what befell a fleet: was it over when its cause was?
//!
//! Knows a run over time and when incidents began and ended. Does not know what they were.

use std::ops::Range;

use serde::Serialize;

use super::bad_day::IncidentSummary;
use super::windows::{Window, Windows};

/// A run around its incidents. A request is good if it met every limit, or got a whole answer where there are no limits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Aftermath {
    /// When the first incident began, seconds since the run began.
    pub from_s: f64,
    /// When the last was over: its replica ready again, or as quick as before; none if that was not in this run.
    pub to_s: Option<f64>,
    /// Share of good requests among those sent before; none if none was.
    pub good_before: Option<f64>,
    /// Among those sent from then until it was over.
    pub good_during: Option<f64>,
    /// Among those sent after.
    pub good_after: Option<f64>,
    /// From `to_s` to the end of the last window after it in which more than one request in a hundred was not good; 0 if there
    /// was none; none if that is the run's last window.
    pub recovered_after_s: Option<f64>,
    /// The cause is gone and less is offered than the fleet can bear, and still, in the second half of what came after, not half
    /// as many requests are good as before.
    pub metastable: bool,
}

/// Windows after the last incident below which nothing is said of a state that lasts.
const FEWEST_AFTER: usize = 4;
/// Share of requests that may miss.
const ALLOWED_SHARE: f64 = 0.01;
/// Of what a fleet bears: above this it is at its limit, and a queue that stays is no riddle.
const BELOW_SATURATION: f64 = 0.95;

fn missed(window: &Window) -> f64 {
    window.missed_share.unwrap_or(window.without_answer as f64 / window.offered.max(1) as f64)
}

fn good(windows: &[&Window]) -> Option<f64> {
    let offered: u64 = windows.iter().map(|window| window.offered).sum();
    let missed: f64 = windows.iter().map(|window| missed(window) * window.offered as f64).sum();
    (offered > 0).then(|| 1.0 - missed / offered as f64)
}

/// What became of a run whose incidents are these; none where there were none. `sent` are its requests, by when they were sent in
/// seconds, and whether they were good; `bears` is what the whole fleet can bear, requests a second.
pub fn aftermath(
    windows: &Windows,
    sent: &[(f64, bool)],
    incidents: &[IncidentSummary],
    bears: Option<f64>,
) -> Option<Aftermath> {
    let real = || incidents.iter().filter(|incident| !incident.in_vain);
    let begins = real().map(|incident| incident.at_s);
    let ends = real().map(|incident| Some(incident.at_s + incident.over_after_s?));
    let from_s = begins.reduce(f64::min)?;
    let to_s = ends.reduce(|a, b| Some(a?.max(b?))).flatten();
    let until_s = to_s.unwrap_or(f64::INFINITY);
    let part = |belongs: &dyn Fn(&Window) -> bool| -> Vec<&Window> {
        windows.windows.iter().filter(|window| belongs(window)).collect()
    };
    let before = part(&|window| window.to_s <= from_s);
    let after = part(&|window| window.from_s >= until_s);
    let last_bad = after.iter().rposition(|window| missed(window) > ALLOWED_SHARE);
    let recovered_after_s = match last_bad {
        None => (!after.is_empty()).then_some(0.0),
        Some(last) if last + 1 == after.len() => None,
        Some(last) => Some(after[last].to_s - until_s),
    };
    let settled = &after[after.len() / 2..];
    let offered: u64 = settled.iter().map(|window| window.offered).sum();
    let lasts_s: f64 = settled.iter().map(|window| window.to_s - window.from_s).sum();
    let bearable = bears.is_some_and(|bears| offered as f64 / lasts_s < BELOW_SATURATION * bears);
    let still_bad = match (good(settled), good(&before)) {
        (Some(after), Some(before)) => after < before / 2.0,
        _ => false,
    };
    let share = |range: Range<f64>| {
        let there = || sent.iter().filter(|(at_s, _)| range.contains(at_s));
        let good = there().filter(|(_, good)| *good).count();
        (there().count() > 0).then(|| good as f64 / there().count() as f64)
    };
    Some(Aftermath {
        from_s,
        to_s,
        good_before: share(0.0..from_s),
        good_during: share(from_s..until_s),
        good_after: share(until_s..f64::INFINITY),
        recovered_after_s,
        metastable: after.len() >= FEWEST_AFTER && bearable && still_bad,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten windows of ten seconds with ten requests a second, of which these shares miss.
    fn run(missed: [f64; 10]) -> Windows {
        let window = |(index, share): (usize, f64)| Window {
            from_s: 10.0 * index as f64,
            to_s: 10.0 * (index + 1) as f64,
            offered: 100,
            missed_share: Some(share),
            ..Window::default()
        };
        let windows = missed.into_iter().enumerate().map(window).collect();
        Windows { length_s: 10.0, windows, episodes: Vec::new() }
    }

    /// A hundred requests a window, evenly, the first of each being those that miss.
    fn sent(windows: &Windows) -> Vec<(f64, bool)> {
        let of = |window: &Window| {
            let (from_s, missed) = (window.from_s, window.missed_share.unwrap() * 100.0);
            (0..100).map(move |place| (from_s + f64::from(place) / 10.0, f64::from(place) >= missed))
        };
        windows.windows.iter().flat_map(of).collect()
    }

    fn aftermath_of(run: &Windows, incidents: &[IncidentSummary], bears: Option<f64>) -> Option<Aftermath> {
        aftermath(run, &sent(run), incidents, bears)
    }

    fn slow(at_s: f64, for_s: f64) -> IncidentSummary {
        let kind = "slow-down".into();
        let over_after_s = Some(for_s);
        IncidentSummary {
            at_s,
            kind,
            replica: Some(0),
            gateway: None,
            noticed_after_s: None,
            over_after_s,
            in_vain: false,
        }
    }

    #[test]
    fn what_recovers_is_told_from_what_does_not() {
        let mends = run([0.0, 0.0, 0.5, 0.7, 0.6, 0.4, 0.0, 0.0, 0.0, 0.0]);
        let told = aftermath_of(&mends, &[slow(20.0, 16.0)], Some(20.0)).unwrap();
        assert_eq!((told.from_s, told.to_s, told.good_before), (20.0, Some(36.0), Some(1.0)));
        // Of 160 sent from 20 to 36 s, 50 in the first window and all 60 of the second miss.
        assert!((told.good_during.unwrap() - 50.0 / 160.0).abs() < 1e-12);
        assert_eq!(told.recovered_after_s, Some(24.0));
        assert!(!told.metastable);
        let stays = run([0.0, 0.0, 0.5, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]);
        let told = |bears| aftermath_of(&stays, &[slow(21.0, 15.0)], Some(bears)).unwrap();
        assert!(told(20.0).metastable && told(20.0).recovered_after_s.is_none());
        // At its limit a fleet may well stay there.
        assert!(!told(10.0).metastable);
        assert!(aftermath_of(&stays, &[], Some(20.0)).is_none());
        // A replica that never comes back is trouble to the end.
        let gone = IncidentSummary { kind: "crash".into(), over_after_s: None, ..slow(21.0, 0.0) };
        let told = aftermath_of(&mends, &[slow(5.0, 1.0), gone], None).unwrap();
        assert_eq!((told.to_s, told.good_after, told.recovered_after_s), (None, None, None));
        let unharmed = aftermath_of(&run([0.0; 10]), &[slow(21.0, 15.0)], None).unwrap();
        assert_eq!(unharmed.recovered_after_s, Some(0.0));
    }
}
