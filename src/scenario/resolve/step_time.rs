//! Step times: which model a replica's keys ask for, bound to its card.

use std::path::Path;
use std::sync::Arc;

use super::{Fault, fault, not_negative, positive};
use crate::hardware::{Deployment, Gpu, Model};
use crate::scenario::file::{ReplicaFile, StepTimeFile, StepTimeModelFile};
use crate::step_time::StepTime;
use crate::step_time::affine::Affine;
use crate::step_time::profile::{LayerProfile, LayerTimes};
use crate::step_time::roofline::Roofline;
use crate::time::Span;

/// The step time of the replicas at `path`; what makes it less certain is added to `marks`.
pub(super) fn step_time(
    path: &str,
    file: &ReplicaFile,
    folder: &Path,
    card: &Gpu,
    shape: &Model,
    deployment: &Deployment,
    marks: &mut Vec<String>,
) -> Result<Arc<dyn StepTime>, Fault> {
    let keys = &file.step_time;
    let model = keys.model();
    check_keys(path, keys, model)?;
    let at = |key: &str| format!("{path}.step_time.{key}");
    Ok(match model {
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
    })
}

/// Keys of another model would be passed over.
fn check_keys(path: &str, keys: &StepTimeFile, model: StepTimeModelFile) -> Result<(), Fault> {
    let affine = [
        ("base_us", keys.base_us),
        ("per_token_us", keys.per_token_us),
        ("per_context_token_ns", keys.per_context_token_ns),
        ("host_us", keys.host_us),
    ];
    let given = affine.into_iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key);
    let foreign = match model {
        StepTimeModelFile::Affine => keys.profile.as_ref().map(|_| "profile"),
        StepTimeModelFile::Profile => given.into_iter().next(),
        StepTimeModelFile::Roofline => given.into_iter().next().or(keys.profile.as_ref().map(|_| "profile")),
    };
    let Some(key) = foreign else { return Ok(()) };
    let (named, other) = match (model, key) {
        (StepTimeModelFile::Affine, _) => ("affine", "profile"),
        (StepTimeModelFile::Profile, _) => ("profile", "affine"),
        (StepTimeModelFile::Roofline, "profile") => ("roofline", "profile"),
        (StepTimeModelFile::Roofline, _) => ("roofline", "affine"),
    };
    let message = format!("is a key of model = \"{other}\", and the model is \"{named}\"");
    Err(fault(format!("{path}.step_time.{key}"), message)
        .help(format!("add model = \"{other}\", or drop {key}")))
}
