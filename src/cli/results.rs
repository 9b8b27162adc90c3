//! The folder of a result: written whole under a temporary name, then renamed.

use std::fs;
use std::path::{Path, PathBuf};

use super::CliError;
use crate::report::plots::Plot;
use crate::report::{csv, figures, json};
use crate::scenario::ScenarioError;
use crate::study::Comparison;

/// The file by which a folder is known to be a result of ours.
const SUMMARY: &str = "summary.json";

/// Refuses a folder that holds something else than a result, before anything is computed.
pub(super) fn check_replaceable(out: &Path) -> Result<(), CliError> {
    let is_empty = || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if !out.exists() || (out.is_dir() && (is_empty() || out.join(SUMMARY).is_file())) {
        return Ok(());
    }
    Err(CliError::Input(format!(
        "{} is there already and is no result of tailcast (it has no {SUMMARY})\nhelp: name another folder with --out",
        out.display()
    )))
}

/// Writes everything about a comparison into `out`. `scenario` gives the resolved scenario as seen from a folder.
pub(super) fn write(
    out: &Path,
    comparison: &Comparison,
    scenario: &dyn Fn(&Path) -> Result<String, ScenarioError>,
) -> Result<(), CliError> {
    let cannot =
        |what: &Path, error: &dyn std::fmt::Display| CliError::Write(format!("{}: {error}", what.display()));
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(|error| cannot(&parent, &error))?;
    // The temporary folder lies beside its destination, so that paths in it stay right and renaming is one step.
    let temporary = tempfile::Builder::new()
        .prefix(".tailcast-")
        .tempdir_in(&parent)
        .map_err(|error| cannot(&parent, &error))?;
    let folder = temporary.path();
    let put = |name: String, bytes: &[u8]| {
        fs::write(folder.join(&name), bytes).map_err(|error| cannot(&out.join(&name), &error))
    };
    let summary = json::summary(comparison).map_err(|error| CliError::Write(error.to_string()))?;
    put(SUMMARY.into(), summary.as_bytes())?;
    let requests = csv::requests(comparison).map_err(|error| CliError::Write(error.to_string()))?;
    put("requests.csv".into(), &requests)?;
    let timeline = csv::timeline(comparison).map_err(|error| CliError::Write(error.to_string()))?;
    put("timeline.csv".into(), &timeline)?;
    put("scenario.toml".into(), scenario(folder).map_err(CliError::input)?.as_bytes())?;
    for Plot { name, svg, png } in
        figures::of(comparison).map_err(|error| CliError::Write(error.to_string()))?
    {
        put(format!("{name}.svg"), svg.as_bytes())?;
        put(format!("{name}.png"), &png)?;
    }
    let finished = temporary.keep();
    replace(&finished, out).map_err(|error| cannot(out, &error))
}

/// Puts `finished` in the place of `out`; an earlier result goes only when the new one stands.
fn replace(finished: &Path, out: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // Temporary folders are private; a result is for whoever may read its parent.
    fs::set_permissions(finished, fs::Permissions::from_mode(0o755))?;
    if !out.exists() {
        return fs::rename(finished, out);
    }
    let mut old = finished.as_os_str().to_owned();
    old.push("-old");
    let old = PathBuf::from(old);
    fs::rename(out, &old)?;
    if let Err(error) = fs::rename(finished, out) {
        fs::rename(&old, out)?;
        return Err(error);
    }
    fs::remove_dir_all(old)
}
