//! Results as files and folders: written whole under a temporary name, then renamed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::CliError;
use crate::report::plots::Plot;
use crate::report::{capacity, csv, figures, json, over_time};
use crate::scenario::ScenarioError;
use crate::study::Comparison;

/// The file by which a folder is known to be a result of ours.
pub(super) const SUMMARY: &str = "summary.json";

/// What names begin with of what is not whole yet; one that was killed may leave some behind.
pub(super) const TEMPORARY: &str = ".tailcast-";

/// Refuses a folder that holds something else than a result, before anything is computed.
pub(super) fn check_replaceable(out: &Path) -> Result<(), CliError> {
    let is_empty = || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if !out.exists() || (out.is_dir() && is_empty()) {
        return Ok(());
    }
    if out.is_dir() && out.join(SUMMARY).is_file() {
        // The whole folder is replaced, so nothing may lie in it that somebody else has put there.
        let foreign = fs::read_dir(out)
            .map_err(|error| cannot(out, &error))?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| !is_of_result(name))
            .min();
        return match foreign {
            None => Ok(()),
            Some(name) => Err(CliError::Input(format!(
                "{} would be replaced, and `{name}` in it is no file of a result\nhelp: move it elsewhere, or name another folder with --out",
                out.display()
            ))),
        };
    }
    Err(CliError::Input(format!(
        "{} is there already and is no result of tailcast (it has no {SUMMARY})\nhelp: name another folder with --out",
        out.display()
    )))
}

/// Writes these files, by name, into `out`.
pub(super) fn write_files(out: &Path, files: &[(String, Vec<u8>)]) -> Result<(), CliError> {
    whole(out, &|_| Ok(files.to_vec()))
}

/// Writes everything about a comparison into `out`. `scenario` gives the resolved scenario as seen from a folder.
pub(super) fn write(
    out: &Path,
    comparison: &Comparison,
    scenario: &(dyn Fn(&Path) -> Result<String, ScenarioError> + Sync),
) -> Result<(), CliError> {
    let cannot = |error: &dyn std::fmt::Display| CliError::Write(error.to_string());
    whole(out, &|folder| {
        let (plots, requests) = rayon::join(|| figures::of(comparison), || csv::requests(comparison));
        let mut files = vec![
            (SUMMARY.into(), json::summary(comparison).map_err(|error| cannot(&error))?.into_bytes()),
            ("requests.csv".into(), requests.map_err(|error| cannot(&error))?),
            ("windows.csv".into(), over_time::csv(comparison).map_err(|error| cannot(&error))?),
            ("timeline.csv".into(), csv::timeline(comparison).map_err(|error| cannot(&error))?),
            ("scenario.toml".into(), scenario(folder).map_err(CliError::input)?.into_bytes()),
        ];
        for Plot { name, svg, png } in plots.map_err(|error| cannot(&error))? {
            files.push((format!("{name}.svg"), svg.into_bytes()));
            files.push((format!("{name}.png"), png));
        }
        Ok(files)
    })
}

/// Refuses to put a result, named by `option`, in the place of what it is made of.
pub(super) fn check_not_input<'a>(
    option: &str,
    out: &Path,
    inputs: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<(), CliError> {
    let Ok(there) = fs::canonicalize(out) else { return Ok(()) };
    match inputs.into_iter().any(|input| fs::canonicalize(input).is_ok_and(|input| input == there)) {
        true => {
            let out = out.display();
            let help = "name another file";
            Err(CliError::Input(format!(
                "{option}: {out} is what is read, and would be replaced\nhelp: {help}"
            )))
        }
        false => Ok(()),
    }
}

/// A file that appears whole: it is written beside its place and moved there.
pub(super) fn put(file: &Path, bytes: &[u8]) -> Result<(), CliError> {
    if let Ok(there) = fs::symlink_metadata(file)
        && !there.is_file()
    {
        // A device, a pipe or a link is written to, never replaced.
        return fs::write(file, bytes).map_err(|error| cannot(file, &error));
    }
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|error| cannot(folder, &error))?;
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(folder)
        .map_err(|error| cannot(folder, &error))?;
    temporary.write_all(bytes).map_err(|error| cannot(file, &error))?;
    // Temporary files are private; a result is for whoever may read its folder.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    temporary.as_file().set_permissions(readable).map_err(|error| cannot(file, &error))?;
    temporary.persist(file).map_err(|error| cannot(file, &error.error))?;
    Ok(())
}

/// Files that a result consists of.
const OWN: [&str; 5] = [SUMMARY, "scenario.toml", "requests.csv", "windows.csv", "timeline.csv"];

/// Whether a file of this name is made by us: part of a result, or made from one.
fn is_of_result(name: &str) -> bool {
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    match ending {
        "svg" | "png" => figures::is_one(stem) || stem == capacity::CURVE,
        "parquet" => OWN.contains(&&*format!("{stem}.csv")),
        _ => OWN.contains(&name) || name == "report.html" || name.starts_with(TEMPORARY),
    }
}

/// Refuses to write over a result's own files.
pub(super) fn check_not_own(file: &Path) -> Result<(), CliError> {
    let is_own = file.file_name().is_some_and(|name| OWN.iter().any(|own| name == *own));
    let in_result = file.parent().is_some_and(|parent| parent.join(SUMMARY).is_file());
    match is_own && in_result {
        true => {
            Err(CliError::Input(format!("{} is part of a result\nhelp: name another file", file.display())))
        }
        false => Ok(()),
    }
}

/// What could not be written, and why.
pub(super) fn cannot(what: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::Write(format!("{}: {error}", what.display()))
}

/// Files by name, made with the folder they will lie in.
type Files<'a> = dyn Fn(&Path) -> Result<Vec<(String, Vec<u8>)>, CliError> + 'a;

/// Puts files into a folder that appears whole or not at all.
fn whole(out: &Path, files: &Files<'_>) -> Result<(), CliError> {
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(|error| cannot(&parent, &error))?;
    // The temporary folder lies beside its destination, so that paths in it stay right and renaming is one step.
    let temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempdir_in(&parent)
        .map_err(|error| cannot(&parent, &error))?;
    for (name, bytes) in files(temporary.path())? {
        fs::write(temporary.path().join(&name), bytes).map_err(|error| cannot(&out.join(&name), &error))?;
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
