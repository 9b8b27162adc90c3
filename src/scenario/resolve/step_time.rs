//! Step times: which model a replica's keys ask for, bound to its card.

use std::path::Path;
use std::sync::Arc;

use super::{Fault, fault, not_negative, positive};
use crate::hardware::Placement;
use crate::scenario::file::{ReplicaFile, StepTimeFile, StepTimeModelFile};
use crate::step_time::StepTime;
use crate::step_time::affine::Affine;
use crate::step_time::calibrated::Calibrated;
use crate::step_time::profile::{LayerProfile, LayerTimes};
use crate::step_time::roofline::Roofline;
use crate::time::Span;

/// The step time of the replicas at `path`; what makes it less certain is added to `marks`, and the calibration that it
/// rests on is told.
pub(super) fn step_time(
    path: &str,
    file: &ReplicaFile,
    folder: &Path,
    placement: &Placement,
    marks: &mut Vec<String>,
) -> Result<(Arc<dyn StepTime>, Option<Calibrated>), Fault> {
    let Placement { gpu: card, model: shape, deployment } = placement;
    let keys = &file.step_time;
    let model = keys.model();
    check_keys(path, keys, model)?;
    let at = |key: &str| format!("{path}.step_time.{key}");
    let mut calibration = None;
    let bound: Arc<dyn StepTime> = match model {
        StepTimeModelFile::Roofline => {
            let roofline = Roofline::bind(card, shape, deployment)
                .map_err(|error| fault(path.to_owned(), error.to_string()))?;
            marks.extend(roofline.marks().iter().cloned());
            Arc::new(roofline)
        }
        StepTimeModelFile::Profile => {
            let name = keys.profile.as_deref().ok_or_else(|| {
                fault(format!("{path}.step_time"), "model = \"profile\" needs a folder")
                    .help("add profile = \"folder\"")
            })?;
            let times = LayerProfile::read(&folder.join(name), deployment.tensor_parallel_size)
                .and_then(|profile| LayerTimes::bind(&profile, card, shape, deployment))
                .map_err(|error| fault(at("profile"), error.to_string()))?;
            marks.extend(times.marks().iter().cloned());
            Arc::new(times)
        }
        StepTimeModelFile::Calibrated => {
            let name = keys.calibration.as_deref().ok_or_else(|| {
                fault(format!("{path}.step_time"), "model = \"calibrated\" needs a file")
                    .help("add calibration = \"file.toml\"")
            })?;
            let calibrated = Calibrated::read(&folder.join(name))
                .map_err(|error| fault(at("calibration"), error.to_string()))?;
            let (roofline, elsewhere) = calibrated
                .bind(card, shape, deployment)
                .map_err(|error| fault(at("calibration"), error.to_string()))?;
            marks.extend(roofline.marks().iter().cloned().chain(elsewhere));
            calibration = Some(calibrated);
            Arc::new(roofline)
        }
        StepTimeModelFile::Affine => {
            let base_us = keys.base_us.ok_or_else(|| {
                fault(format!("{path}.step_time"), "model = \"affine\" needs the time of every step")
                    .help("add base_us = ...")
            })?;
            let or_zero = |key: &str, value: Option<f64>| not_negative(&at(key), value.unwrap_or(0.0));
            let per_context_token_ns = or_zero("per_context_token_ns", keys.per_context_token_ns)?;
            Arc::new(Affine {
                base: Span::from_us_f64(positive(&at("base_us"), base_us)?),
                per_token: Span::from_us_f64(or_zero("per_token_us", keys.per_token_us)?),
                per_context_token: Span::from_us_f64(per_context_token_ns / 1_000.0),
                host: Span::from_us_f64(or_zero("host_us", keys.host_us)?),
            })
        }
    };
    Ok((bound, calibration))
}

/// Keys of another model would be passed over.
fn check_keys(path: &str, keys: &StepTimeFile, model: StepTimeModelFile) -> Result<(), Fault> {
    let given = [
        ("base_us", keys.base_us.is_some(), StepTimeModelFile::Affine),
        ("per_token_us", keys.per_token_us.is_some(), StepTimeModelFile::Affine),
        ("per_context_token_ns", keys.per_context_token_ns.is_some(), StepTimeModelFile::Affine),
        ("host_us", keys.host_us.is_some(), StepTimeModelFile::Affine),
        ("profile", keys.profile.is_some(), StepTimeModelFile::Profile),
        ("calibration", keys.calibration.is_some(), StepTimeModelFile::Calibrated),
    ];
    let Some((key, _, other)) = given.into_iter().find(|(_, given, of)| *given && *of != model) else {
        return Ok(());
    };
    let name = |model| match model {
        StepTimeModelFile::Roofline => "roofline",
        StepTimeModelFile::Profile => "profile",
        StepTimeModelFile::Calibrated => "calibrated",
        StepTimeModelFile::Affine => "affine",
    };
    let message = format!("is a key of model = \"{}\", and the model is \"{}\"", name(other), name(model));
    Err(fault(format!("{path}.step_time.{key}"), message)
        .help(format!("add model = \"{}\", or drop {key}", name(other))))
}
