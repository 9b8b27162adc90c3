//! Pickers of the endpoint picker, by llm-d's names.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::random::{Purpose, Seed, Stream};

/// Who is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PickerPlugin {
    /// The greatest score; equals uniformly.
    #[default]
    MaxScorePicker,
    /// Anyone.
    RandomPicker,
    /// By chance in proportion to the score (A-Res: the greatest U^(1/score)).
    WeightedRandomPicker,
}

/// A picker and its chances.
#[derive(Clone, Debug)]
pub struct Picker {
    kind: PickerPlugin,
    stream: Stream,
}

impl Picker {
    pub(super) fn new(kind: &PickerPlugin, seed: Seed, gateway: u64) -> Picker {
        Picker { kind: *kind, stream: seed.stream(Purpose::Routing, gateway) }
    }

    /// The place of the one that is taken.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick(&mut self, scores: &[f64]) -> usize {
        let best = |keys: &[f64]| {
            let most = keys.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (0..keys.len()).filter(|&place| keys[place] == most).collect::<Vec<_>>()
        };
        let equals = match self.kind {
            PickerPlugin::MaxScorePicker => best(scores),
            PickerPlugin::RandomPicker => (0..scores.len()).collect(),
            PickerPlugin::WeightedRandomPicker => {
                // Of scores that are all nothing, everybody is as good.
                let key = |score: &f64| self.stream.random::<f64>().powf(1.0 / score.max(1e-12));
                best(&scores.iter().map(key).collect::<Vec<_>>())
            }
        };
        match equals.len() {
            1 => equals[0],
            count => equals[self.stream.random_range(0..count)],
        }
    }
}
