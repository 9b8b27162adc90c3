//! A scenario: from the file as written to the run as meant.
//!
//! Knows keys, defaults and what they mean together. Does not run anything.
//!
//! - [`mod@file`]: the keys as written
//! - [`resolve`]: the scenario as run, validated
//! - [`overrides`]: `--set` and variants
//! - [`error`]: mistakes, shown with their place

use std::path::{Path, PathBuf};

pub mod error;
pub mod file;
pub mod overrides;
pub mod resolve;
pub mod vllm_command;

pub use error::ScenarioError;
use file::ScenarioFile;
pub use resolve::{
    LONGEST_S, MOST_REPETITIONS, ReplicaKind, Resample, RouterPlan, Scenario, WarmupRule, Workload,
};

/// A scenario file that has been read and understood, with the text it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its name, as errors show it.
    name: String,
    /// The folder that its paths are relative to.
    folder: PathBuf,
    text: String,
    /// Its keys.
    pub file: ScenarioFile,
}

impl Loaded {
    /// Reads a scenario file and lays assignments (`--set`) over it.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or has a key or value that does not belong.
    pub fn read(path: &Path, assignments: &[String]) -> Result<Loaded, ScenarioError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            ScenarioError::of_file(&name, error.to_string())
                .help("name a scenario file, such as scenarios/quickstart.toml")
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Loaded::from_text(&name, &folder, text, assignments)
    }

    /// The same from text; `folder` is what relative paths start from.
    ///
    /// # Errors
    /// As [`Loaded::read`].
    pub fn from_text(
        name: &str,
        folder: &Path,
        mut text: String,
        assignments: &[String],
    ) -> Result<Loaded, ScenarioError> {
        for assignment in assignments {
            text = overrides::set(name, &text, assignment)?;
        }
        // Lines are counted in what is read, which is no longer what is in the file.
        let name = if assignments.is_empty() { name.to_string() } else { format!("{name} with --set") };
        let file: ScenarioFile =
            toml::from_str(&text).map_err(|error| ScenarioError::of_toml(&name, &text, &error))?;
        Ok(Loaded { name, folder: folder.into(), text, file })
    }

    /// The scenario as written, with assignments laid over it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Files whose content decides what comes out: the trace and scripts, those of variants too, lengths, models, profiles and calibrations,
    /// where they are named.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let mut file = self.file.clone();
        let mut named: Vec<PathBuf> = file.workload.trace.iter().map(PathBuf::from).collect();
        named.extend(resolve::script_files(&mut file.router.parameters));
        named.extend(file.variants.iter_mut().filter_map(parameters_of).flat_map(resolve::script_files));
        named.extend(file.workload.length_traces().into_iter().map(|trace| PathBuf::from(&*trace)));
        for kind in file.replicas.iter() {
            named.push(PathBuf::from(&kind.model));
            named.extend(
                [&kind.step_time.profile, &kind.step_time.calibration]
                    .into_iter()
                    .flatten()
                    .map(PathBuf::from),
            );
        }
        let mut files = Vec::new();
        for named in named.into_iter().map(|named| self.folder.join(named)) {
            match std::fs::read_dir(&named) {
                // A profile is a folder.
                Ok(entries) => {
                    let start = files.len();
                    files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
                    files[start..].sort();
                }
                Err(_) => files.extend(named.is_file().then_some(named)),
            }
        }
        files
    }

    /// The scenario as run.
    ///
    /// # Errors
    /// If its keys make no sense together, a name is unknown, or a replica cannot start.
    pub fn resolve(&self) -> Result<Scenario, ScenarioError> {
        resolve::resolve(&self.file, &self.folder).map_err(|fault| fault.locate(&self.name, &self.text))
    }

    /// The scenario with another policy.
    ///
    /// # Errors
    /// As [`Loaded::resolve`].
    pub fn with_policy(&self, policy: &str) -> Result<Scenario, ScenarioError> {
        let mut file = self.file.clone();
        // Parameters belong to the policy they were written for.
        if policy != file.router.policy {
            file.router.parameters = toml::Table::new();
        }
        file.router.policy = policy.into();
        resolve::resolve(&file, &self.folder).map_err(|fault| fault.locate(&self.name, &self.text))
    }

    /// Names of the variants, in order.
    ///
    /// # Errors
    /// If one has no name, or a name stands twice.
    pub fn variant_names(&self) -> Result<Vec<String>, ScenarioError> {
        let mut names: Vec<String> = Vec::new();
        for (index, variant) in self.file.variants.iter().enumerate() {
            let path = format!("variants.{index}");
            let at = |message: &str| ScenarioError::at(&self.name, &self.text, &path, message);
            match variant.get("name") {
                Some(toml::Value::String(name)) if !name.is_empty() && !names.contains(name) => {
                    names.push(name.clone())
                }
                Some(toml::Value::String(_)) => return Err(at("each variant has a name of its own")),
                _ => return Err(at("a variant has a name").help("add name = \"...\"")),
            }
        }
        Ok(names)
    }

    /// Names of the policies in the file: its own, those to compare, and those of variants.
    pub fn policies_named(&self) -> impl Iterator<Item = &str> {
        let variants = self.file.variants.iter().filter_map(move |variant| {
            match variant.get("router")?.get("policy")? {
                toml::Value::String(name) => Some(name.as_str()),
                _ => None,
            }
        });
        let own = std::iter::once(self.file.router.policy.as_str());
        own.chain(self.file.policies.iter().map(String::as_str)).chain(variants)
    }

    /// The scenario with the keys of variant number `index` laid over it.
    ///
    /// # Errors
    /// As [`Loaded::resolve`].
    pub fn with_variant(&self, index: usize) -> Result<Scenario, ScenarioError> {
        let path = format!("variants.{index}");
        let at = |message: &str| ScenarioError::at(&self.name, &self.text, &path, message);
        let mut base: toml::Table =
            self.text.parse().map_err(|error: toml::de::Error| at(error.message()))?;
        base.remove("variants");
        let mut over = self.file.variants[index].clone();
        over.remove("name");
        forget_parameters_of_another_policy(&mut base, &over);
        overrides::merge(&mut base, &over);
        let file: ScenarioFile = base
            .try_into()
            .map_err(|error: toml::de::Error| ScenarioError::of_toml(&self.name, "", &error).moved_to(at))?;
        resolve::resolve(&file, &self.folder).map_err(|fault| fault.locate(&self.name, "").moved_to(at))
    }

    fn embed_scripts(&self, parameters: &mut toml::Table) -> Result<(), ScenarioError> {
        let embedded = resolve::embed_scripts(parameters, &self.folder);
        embedded.map_err(|fault| fault.locate(&self.name, &self.text))
    }

    /// The scenario with all that was left open filled in, to be written into `folder`: it runs again to the
    /// same bytes.
    ///
    /// # Errors
    /// As [`Loaded::resolve`].
    pub fn resolved_text(&self, policies: &[String], folder: &Path) -> Result<String, ScenarioError> {
        let mut file = resolve::fill_in(&self.file, &self.folder)
            .map_err(|fault| fault.locate(&self.name, &self.text))?;
        if !policies.is_empty() {
            file.policies = policies.to_vec();
        }
        self.embed_scripts(&mut file.router.parameters)?;
        for parameters in file.variants.iter_mut().filter_map(parameters_of) {
            self.embed_scripts(parameters)?;
        }
        if let Some(trace) = &mut file.workload.trace {
            *trace = relative(&self.folder.join(&*trace), folder);
        }
        for trace in file.workload.length_traces() {
            *trace = relative(&self.folder.join(&*trace), folder);
        }
        for model in
            file.replicas.iter_mut().map(|kind| &mut kind.model).filter(|model| model.ends_with(".json"))
        {
            *model = relative(&self.folder.join(&*model), folder);
        }
        for kind in &mut file.replicas {
            let keys = &mut kind.step_time;
            for path in [&mut keys.profile, &mut keys.calibration].into_iter().flatten() {
                *path = relative(&self.folder.join(&*path), folder);
            }
        }
        toml::to_string(&file).map_err(|error| ScenarioError::of_file(&self.name, error.to_string()))
    }
}

/// The parameters that a variant has of its own.
fn parameters_of(variant: &mut toml::Table) -> Option<&mut toml::Table> {
    variant.get_mut("router")?.as_table_mut()?.get_mut("parameters")?.as_table_mut()
}

/// Parameters belong to the policy they were written for: a variant with another policy starts without.
fn forget_parameters_of_another_policy(base: &mut toml::Table, over: &toml::Table) {
    let policy_of =
        |table: &toml::Table| table.get("router").and_then(|router| router.get("policy")).cloned();
    if policy_of(over).is_some_and(|policy| policy_of(base) != Some(policy))
        && let Some(toml::Value::Table(router)) = base.get_mut("router")
    {
        router.remove("parameters");
    }
}

/// `target` as seen from `folder`; absolute where there is no relative way.
fn relative(target: &Path, folder: &Path) -> String {
    let (Ok(target), Ok(folder)) = (target.canonicalize(), folder.canonicalize()) else {
        return target.display().to_string();
    };
    let common = target.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(common).map(|_| PathBuf::from(".."));
    let down = target.components().skip(common).map(|part| PathBuf::from(part.as_os_str()));
    let way: PathBuf = up.chain(down).collect();
    way.display().to_string()
}
