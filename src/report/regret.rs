//! Regrets as a table for a terminal.

use super::table::{Table, number, number_or_dash, percent};
use crate::study::regret::Regrets;

/// The table, and what it rests on.
pub fn text(regrets: &Regrets) -> String {
    let head = [
        "name",
        "E2E ms P99",
        "right %",
        "regret ms mean",
        "P99",
        "of slowest 1 %",
        "in all s",
        "fewest wrong %",
        "cost ms mean",
    ];
    let mut table = Table::new(&head, 1);
    for regret in &regrets.regrets {
        table.row(vec![
            regret.name.clone(),
            number_or_dash(regret.e2e_p99_ms),
            percent(regret.right_share),
            number(regret.mean_ms),
            number(regret.p99_ms),
            number(regret.of_slowest_ms),
            number(regret.total_s),
            percent(regret.fewest_wrong_share),
            number(regret.fewest_mean_ms),
        ]);
    }
    let title = if regrets.title.is_empty() { String::new() } else { format!("{}\n\n", regrets.title) };
    let bound = match regrets.bound_e2e_p99_ms {
        Some(bound) => format!(
            "no policy can bring E2E P99 below {} ms here: every request alone on its best replica, all that others hold cached",
            number(bound)
        ),
        None => "none, because it depends on the policy which requests are counted: a closed loop with a warm-up, a cool-down or \
                 an end"
            .to_string(),
    };
    format!(
        "{title}{}\n\
         regret: the end at the replica chosen less the soonest end at any, if nobody came after (first repetition)\n\
         fewest wrong: how often the replica with the fewest requests in flight was not the soonest, and what going there costs\n\
         bound: {bound}\n",
        table.render()
    )
}
