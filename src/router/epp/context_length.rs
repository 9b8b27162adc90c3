//! `context-length-aware`: endpoints that say which prompts they are for.
//!
//! An endpoint's label holds a range of tokens, `0-8192`. A prompt of L tokens within a range of width W scores
//! 0.3 + 0.7 (0.7 / (1 + W / 10,000) + 0.3 (max - L) / W), 1 where W is 0; outside 0.3 / (1 + distance / 1,000); without a label 0.5.
//! A label that is no range scores 0, and counts as one that does not hold the prompt (llm-d-router `contextlengthaware`).

use crate::router::{Glance, Server};

/// The label that is read unless another is named.
pub(super) const LABEL: &str = "llm-d.ai/context-length-range";

/// What an endpoint says of prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Nothing,
    Range(u32, u32),
    Nonsense,
}

fn says(label: &str, server: Server, glance: &dyn Glance) -> Says {
    let labels = &glance.facts(server).labels;
    let Some((_, value)) = labels.iter().find(|(key, _)| key == label) else { return Says::Nothing };
    let bound = |text: &str| text.trim().parse().ok();
    let range = value.split_once('-').and_then(|(least, most)| Some((bound(least)?, bound(most)?)));
    range
        .filter(|(least, most)| least <= most)
        .map_or(Says::Nonsense, |(least, most)| Says::Range(least, most))
}

/// Whether an endpoint takes prompts of this length.
pub(super) fn takes(label: &str, prompt_tokens: u32, server: Server, glance: &dyn Glance) -> bool {
    match says(label, server, glance) {
        Says::Nothing => true,
        Says::Range(least, most) => (least..=most).contains(&prompt_tokens),
        Says::Nonsense => false,
    }
}

/// How good an endpoint is for a prompt of this length, 0 to 1.
pub(super) fn score(label: &str, prompt_tokens: u32, server: Server, glance: &dyn Glance) -> f64 {
    const OUTSIDE: f64 = 0.3;
    match says(label, server, glance) {
        Says::Nothing => 0.5,
        Says::Nonsense => 0.0,
        Says::Range(least, most) if (least..=most).contains(&prompt_tokens) => {
            let width = f64::from(most - least);
            if width == 0.0 {
                return 1.0;
            }
            let narrow = 1.0 / (1.0 + width / 10_000.0);
            let headroom = f64::from(most - prompt_tokens) / width;
            OUTSIDE + (1.0 - OUTSIDE) * (0.7 * narrow + 0.3 * headroom)
        }
        Says::Range(least, most) => {
            let distance = if prompt_tokens > most { prompt_tokens - most } else { least - prompt_tokens };
            OUTSIDE / (1.0 + f64::from(distance) / 1_000.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Decision;
    use crate::router::tests::{Scene, policy, prompt};

    /// By hand, for a prompt of 1,000 tokens.
    #[test]
    fn narrow_ranges_that_hold_the_prompt_are_best() {
        let mut scene = Scene::of(1);
        let mut of = |value: &str| {
            scene.facts.labels = vec![(LABEL.into(), value.into())];
            score(LABEL, 1_000, 0, &scene)
        };
        assert!((of("0-2000") - (0.3 + 0.7 * (0.7 / 1.2 + 0.3 * 0.5))).abs() < 1e-12);
        assert!((of("0 - 10000") - (0.3 + 0.7 * (0.35 + 0.27))).abs() < 1e-12);
        assert_eq!(of("1000-1000"), 1.0);
        assert!((of("2000-4000") - 0.15).abs() < 1e-12);
        assert!((of("0-500") - 0.2).abs() < 1e-12);
        assert_eq!((of("500-100"), of("all"), of("-5")), (0.0, 0.0, 0.0));
        scene.facts.labels.clear();
        assert_eq!(score(LABEL, 1_000, 0, &scene), 0.5);
    }

    #[test]
    fn who_does_not_take_the_prompt_may_be_left_out() {
        let mut scene = Scene::of(2);
        scene.facts.labels = vec![(LABEL.into(), "0-500".into())];
        let scorer = |more: &str| format!("scorers = [{{ type = \"context-length-aware\"{more} }}]");
        let mut open = policy("epp-weighted", &scorer(""));
        assert!(matches!(open.decide(&prompt(0, 1, 1_000), &mut scene), Decision::Send(_)));
        let mut strict = policy("epp-weighted", &scorer(", enable_filtering = true"));
        assert_eq!(strict.decide(&prompt(0, 1, 1_000), &mut scene), Decision::Reject);
        assert!(matches!(strict.decide(&prompt(1, 1, 400), &mut scene), Decision::Send(_)));
    }
}
