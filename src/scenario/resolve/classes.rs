//! Tenants and levels of service: names, shares, lengths and what counts as good for each.

use std::path::Path;

use super::lengths::lengths;
use super::{Fault, fault, limits, positive};
use crate::metrics::Objectives;
use crate::scenario::file::{ClassFile, ScenarioFile};
use crate::workload::drawn::Class;

/// Classes that a workload may have: results have a row for each.
const MOST_CLASSES: usize = 1_000;

/// What is drawn.
pub(super) fn classes(written: Option<&Vec<ClassFile>>, folder: &Path) -> Result<Vec<Class>, Fault> {
    let written = written.map_or(&[][..], Vec::as_slice);
    if written.len() > MOST_CLASSES {
        let count = written.len();
        return Err(fault(
            "workload.classes",
            format!("{count} classes; at most {MOST_CLASSES} can be shown"),
        ));
    }
    let mut classes: Vec<Class> = Vec::with_capacity(written.len());
    for (index, class) in written.iter().enumerate() {
        let at = |key: &str| format!("workload.classes.{index}.{key}");
        if class.name.trim().is_empty() {
            return Err(fault(at("name"), "is empty").help("results call the class by its name"));
        }
        if classes.iter().any(|other| other.name == class.name) {
            return Err(fault(at("name"), format!("there are two classes \"{}\"", class.name)));
        }
        let own = |key: &str, given: &Option<_>| {
            given.as_ref().map(|given| lengths(&at(key), given, folder)).transpose()
        };
        classes.push(Class {
            name: class.name.clone(),
            share: positive(&at("share"), class.share)?,
            priority: class.priority,
            prompt: own("prompt_tokens", &class.prompt_tokens)?,
            output: own("output_tokens", &class.output_tokens)?,
            lora: class.lora.clone(),
        });
    }
    Ok(classes)
}

/// What each must meet: its own limits, or those of the scenario.
pub(super) fn objectives(file: &ScenarioFile, all: Objectives) -> Result<Vec<(String, Objectives)>, Fault> {
    let of = |(index, class): (usize, &ClassFile)| {
        let own = class.goodput.as_ref();
        let own = own.map(|own| limits(&format!("workload.classes.{index}.goodput"), own)).transpose()?;
        Ok((class.name.clone(), own.unwrap_or(all)))
    };
    file.workload.classes.iter().flatten().enumerate().map(of).collect()
}
