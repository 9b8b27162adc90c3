//! The house rules that a machine can check: floors, file lengths, and words.

use std::fs;
use std::path::{Path, PathBuf};

/// Floors of `ARCHITECTURE.md`, lowest first. A module uses lower floors only.
const FLOORS: &[&[&str]] = &[
    &["compression", "time", "random", "request", "signals", "observe"],
    &["trace", "workload", "hardware", "step_time"],
    &["replica"],
    &["router", "autoscaler", "metrics"],
    &["agenda", "fleet"],
    &["scenario", "study", "verify", "calibration", "explain"],
    &["report"],
    &["cli"],
];

/// Within a floor, who may use whom.
const NEIGHBOURS: &[(&str, &str)] = &[
    ("request", "time"),
    ("signals", "time"),
    ("observe", "time"),
    ("workload", "trace"),
    ("step_time", "hardware"),
    ("fleet", "agenda"),
    ("study", "scenario"),
    ("verify", "scenario"),
    ("verify", "study"),
    ("explain", "scenario"),
    ("explain", "study"),
    ("calibration", "verify"),
    ("calibration", "scenario"),
];

const MOST_LINES: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    rust_files(&root().join(folder), &mut files);
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The top-level module that a file of `src/` belongs to; none for lib.rs and main.rs.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next()?.as_os_str().to_string_lossy().into_owned();
    let module = first.trim_end_matches(".rs").to_string();
    (!["lib", "main"].contains(&module.as_str())).then_some(module)
}

/// Names of modules behind `crate::` on a line.
fn used(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let names = code.split("crate::").skip(1);
    names.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn no_module_uses_a_higher_floor() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let Some(module) = module_of(&path) else { continue };
        let floor =
            floor_of(&module).unwrap_or_else(|| panic!("{}: {module} is on no floor", path.display()));
        for (number, line) in text.lines().enumerate() {
            for other in used(line).into_iter().filter(|other| *other != module) {
                let Some(other_floor) = floor_of(&other) else { continue };
                let neighbour = NEIGHBOURS.contains(&(module.as_str(), other.as_str()));
                if other_floor > floor || (other_floor == floor && !neighbour) {
                    let place = format!("{}:{}", path.display(), number + 1);
                    wrong.push(format!(
                        "{place}: {module} (floor {floor}) uses {other} (floor {other_floor})"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_where_they_are() {
    assert_eq!(used("use crate::fleet::{End, Network};"), ["fleet"]);
    assert_eq!(
        used("    let limit: crate::time::Span = crate::study::of(x); // crate::cli"),
        ["time", "study"]
    );
    assert!(floor_of("replica") < floor_of("fleet"));
}

#[test]
fn a_file_is_one_idea() {
    for folder in ["src", "tests", "examples"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(
                lines <= MOST_LINES,
                "{}: {lines} lines; split it (at most {MOST_LINES})",
                path.display()
            );
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for (path, text) in sources("src") {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//!"), "{}:1: begin with what this module knows (//!)", path.display());
    }
}

/// A stub that is called done is a defect.
#[test]
fn nothing_is_left_unfinished() {
    let marks = ["todo", "unimplemented"].map(|name| format!("{name}!("));
    for (path, text) in sources("src") {
        for (number, line) in text.lines().enumerate() {
            let unfinished = marks.iter().any(|mark| line.contains(mark.as_str()));
            assert!(!unfinished, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}
