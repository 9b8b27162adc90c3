//! What befell a run, from the fleet's books to its summary.

use crate::fleet::Tally;
use crate::fleet::incidents::Happened;
use crate::metrics::{BadDay, IncidentSummary};
use crate::time::Time;

/// The summary of a run that ended at `ended`, with so many requests `(lost, timed out)` and so many output tokens
/// `generated` by its engines.
pub(super) fn bad_day(
    tally: &Tally,
    happened: &[Happened],
    ended: Time,
    (lost, timed_out): (u64, u64),
    generated: u64,
) -> BadDay {
    BadDay {
        lost,
        timed_out,
        tries: tally.tries,
        gateway_retries: tally.gateway_retries,
        hedges: tally.hedges,
        lost_tries: tally.lost,
        timed_out_tries: tally.timed_out,
        unavailable_tries: tally.unavailable,
        answers_wasted: tally.answers_wasted,
        output_tokens_wasted: tally.output_tokens_wasted,
        wasted_share: tally.output_tokens_wasted as f64 / generated.max(1) as f64,
        incidents: happened.iter().filter(|one| one.at <= ended).map(|one| incident(one, ended)).collect(),
    }
}

fn incident(happened: &Happened, ended: Time) -> IncidentSummary {
    let after = |moment: Option<Time>| {
        moment.filter(|moment| *moment <= ended).map(|moment| (moment - happened.at).as_s())
    };
    IncidentSummary {
        at_s: happened.at.as_s(),
        kind: happened.what.name().into(),
        replica: happened.server.map(|server| server as u32),
        gateway: happened.gateway.map(|gateway| gateway as u32),
        noticed_after_s: after(happened.noticed),
        over_after_s: after(happened.over),
        in_vain: happened.in_vain,
    }
}
