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
    keys: Vec<f64>,
}

impl Picker {
    pub(super) fn new(kind: &PickerPlugin, seed: Seed, gateway: u64) -> Picker {
        Picker { kind: *kind, stream: seed.stream(Purpose::Routing, gateway), keys: Vec::new() }
    }

    /// The place of the one that is taken.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick(&mut self, scores: &[f64]) -> usize {
        let Picker { kind, stream, keys } = self;
        keys.clear();
        match kind {
            PickerPlugin::MaxScorePicker => keys.extend(scores),
            PickerPlugin::RandomPicker => keys.resize(scores.len(), 0.0),
            // Of scores that are all nothing, everybody is as good.
            PickerPlugin::WeightedRandomPicker => {
                keys.extend(scores.iter().map(|score| stream.random::<f64>().powf(1.0 / score.max(1e-12))));
            }
        }
        let most = keys.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut equals = (0..keys.len()).filter(|&place| keys[place] == most);
        let place = match equals.clone().count() {
            1 => 0,
            count => stream.random_range(0..count),
        };
        equals.nth(place).unwrap_or(0)
    }
}
