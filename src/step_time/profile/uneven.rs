//! What a context far above the mean adds to attention of decodes alone.
//!
//! FlashAttention 2 reads one sequence's keys in one thread block a head unless it splits them, and it splits only
//! where sequences are too few to fill the card. The longest context then reads on when the others are done: time
//! grows with its distance from the mean. Profiles hold that as calls with few long contexts among many short ones,
//! beside the time of as many equal ones.
//!
//! In a server steps of decodes alone run in CUDA graphs, which were captured for the longest context the server
//! allows. A split of that length holds any real context whole, so there, unlike in the profile, no context is split:
//! what the profile shows for the fewest sequences without a split holds for all below. (Seen in a recorded run: of 36
//! to 60 sequences one with 4,700 tokens among 1,400 took 1.8 to 3 ms a step, gone with the step after its end.)

use super::curve::Curve;
use super::folder::{AttentionRow, UnevenRow};

/// Contexts count as few when they are at most this share of all.
const FEW: f64 = 0.1;
/// Shorter distances between longest and mean drown in noise, in tokens.
const LEAST_DISTANCE: f64 = 256.0;

/// Microseconds of a layer's call for each token by which the longest context exceeds the mean, by sequences.
#[derive(Clone, Debug)]
pub(super) struct Uneven {
    us_per_token: Curve,
}

impl Uneven {
    /// None if the profile has no calls of that kind. `even` prices as many equal contexts from the profile's other
    /// table; `captured` says whether decodes run in CUDA graphs.
    pub(super) fn new(rows: &[UnevenRow], attention: &[AttentionRow], captured: bool) -> Option<Uneven> {
        let scale = scale(rows, attention)?;
        let few = |row: &&UnevenRow| {
            (row.long <= (FEW * row.sequences).max(1.0)) && row.longest - row.mean >= LEAST_DISTANCE
        };
        let mut few: Vec<&UnevenRow> = rows.iter().filter(few).collect();
        few.sort_by(|a, b| a.sequences.total_cmp(&b.sequences));
        let mut points: Vec<(f64, f64)> = few
            .chunk_by(|a, b| a.sequences == b.sequences)
            .map(|same| {
                let slopes = same.iter().map(|row| (row.us - row.even_us) / scale / (row.longest - row.mean));
                (same[0].sequences, median(slopes.collect()).max(0.0))
            })
            .collect();
        if captured {
            let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
            for point in points.iter_mut().take_while(|point| point.1 < most) {
                point.1 = most;
            }
        }
        Some(Uneven { us_per_token: Curve::through(points)? })
    }

    pub(super) fn us_per_token(&self, sequences: u32) -> f64 {
        self.us_per_token.at(f64::from(sequences))
    }
}

/// Some profilers write the sum of their rounds into this table and the mean into the other: how many rounds the times
/// are of, by calls that both hold.
fn scale(rows: &[UnevenRow], attention: &[AttentionRow]) -> Option<f64> {
    let mut quotients = Vec::new();
    for row in rows {
        let even = Curve::through(
            attention
                .iter()
                .filter(|other| other.chunk == 0.0 && other.decodes == row.sequences && other.context > 0.0)
                .map(|other| (other.context, other.us)),
        );
        quotients.extend(even.map(|even| row.even_us / even.at(row.mean)));
    }
    (!quotients.is_empty()).then(|| median(quotients).round().max(1.0))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
