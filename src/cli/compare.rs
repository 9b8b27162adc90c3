//! `tailcast compare`: policies and variants side by side on the same requests.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{
    CliError, CompareOptions, Pace, RunOptions, check_that_keys_are_read, print, progress, results, say,
};
use crate::report::{json, text};
use crate::router::products::{self, Chosen, Offer, Product, Written};
use crate::router::{COMPARED, POLICIES, policies};
use crate::scenario::error::nearest_or_all;
use crate::scenario::{Loaded, MOST_REPETITIONS};
use crate::study::Keep;
use crate::study::compare::{Comparison, Contender, Repetitions};

/// Compare policies (and [[variants]]) on the same requests, ranked by E2E P99
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: RunOptions,
    #[command(flatten)]
    compare: CompareOptions,
    /// Policies to compare, separated by commas, or `all`; the scenario's `policies` and `[[variants]]` unless given
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    policies: Vec<String>,
    /// Only what this gateway offers, variants left out, and the winner as its configuration: aibrix, dynamo, envoy,
    /// haproxy, llm-d, nginx, production-stack or sglang
    #[arg(long, value_name = "PRODUCT", conflicts_with = "policies")]
    product: Option<String>,
    /// Go on with more repetitions until every contender is known to be behind the first, or as good as it (within 1 %), but with
    /// no more than this
    #[arg(long, value_name = "MOST", num_args = 0..=1, default_missing_value = "200", require_equals = true,
          value_parser = clap::value_parser!(u32).range(5..=i64::from(MOST_REPETITIONS)))]
    until_decided: Option<u32>,
    /// Where results are written; output/NAME-OF-THE-SCENARIO unless given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let options = &arguments.options;
    let mut loaded = options.read_with_repetitions(match arguments.until_decided {
        Some(_) => FEWEST_REPETITIONS,
        None => 1,
    })?;
    if let Some(most) = arguments.until_decided
        && loaded.file.repeat > most
    {
        return Err(CliError::Input(format!(
            "--until-decided: expected at least the {} repetitions of the scenario, got {most}\nhelp: it goes on from `repeat` on; lower that, or \
             raise the most",
            loaded.file.repeat
        )));
    }
    let product = arguments.product.as_deref().map(product_named).transpose()?;
    let (contenders, policies) = match product {
        // Variants are of the scenario's own making: the verdict is on what the product offers.
        Some(product) => of_product(&mut loaded, product)?,
        None => contenders(&loaded, &arguments.policies)?,
    };
    check_that_keys_are_read(&loaded, &contenders)?;
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => {
            let stem = options.scenario.file_stem().unwrap_or("scenario".as_ref());
            PathBuf::from("output").join(stem)
        }
    };
    results::check_replaceable(&out)?;
    let runs = contenders.len() as u64
        * u64::from(contenders[0].scenario.repeat + arguments.compare.uncertainty.unwrap_or(0));
    let bar = progress(runs, options.quiet);
    let pace = Pace::begin();
    let repetitions = match arguments.until_decided {
        Some(most) => Repetitions::UntilDecided { most },
        None => Repetitions::Fixed,
    };
    let comparison =
        arguments.compare.compare(options, &contenders, repetitions, Keep::Outcomes, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let pace = pace.told(&comparison);
    // As many repetitions as it took, so that it runs again to the same bytes.
    loaded.file.repeat = comparison.repeat;
    let resolved = |folder: &Path| loaded.resolved_text(&policies, folder);
    options.threads.run(|| results::write(&out, &comparison, &resolved))??;
    let shown = if arguments.compare.json {
        json::summary(&comparison).map_err(|error| CliError::Write(error.to_string()))?
    } else {
        text::comparison(&comparison)
            + product.map_or(String::new(), |product| deployed(product, &comparison, &contenders)).as_str()
    };
    print(&shown)?;
    if !options.quiet {
        say(&pace);
        say(&format!("results and plots are in {}", out.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Repetitions from which on a comparison that goes on until it is decided is looked at.
const FEWEST_REPETITIONS: u32 = 5;

fn product_named(name: &str) -> Result<&'static Product, CliError> {
    products::find(name).ok_or_else(|| {
        let known: Vec<&str> = products::PRODUCTS.iter().map(|product| product.name).collect();
        CliError::Input(format!(
            "--product: unknown product `{name}`\nhelp: {}",
            nearest_or_all(name, &known)
        ))
    })
}

/// What a product offers, in place of what the scenario compares: where it has parameters of its own, as a variant with its own name.
/// Parameters that the scenario sets for its policy hold for whatever of the product is that policy.
fn of_product(loaded: &mut Loaded, product: &Product) -> Result<(Vec<Contender>, Vec<String>), CliError> {
    loaded.resolve().map_err(CliError::input)?;
    let router = &loaded.file.router;
    let (plain, own): (Vec<&Offer>, Vec<&Offer>) =
        product.offers.iter().partition(|offer| offer.parameters.is_empty());
    let as_variant = |offer: &&Offer| {
        let set = if router.policy == offer.policy { router.parameters.clone() } else { toml::Table::new() };
        let mut keys = toml::Table::new();
        keys.insert("policy".into(), offer.policy.into());
        keys.insert("parameters".into(), offer.parameters(&set).into());
        toml::Table::from_iter([
            ("name".to_string(), toml::Value::from(offer.name)),
            ("router".to_string(), toml::Value::Table(keys)),
        ])
    };
    let variants = own.iter().map(as_variant).collect();
    loaded.file.policies = plain.iter().map(|offer| offer.policy.to_string()).collect();
    loaded.file.variants = variants;
    contenders(loaded, &[])
}

fn with_policy(loaded: &Loaded, policy: &str) -> Result<Contender, CliError> {
    let scenario = loaded.with_policy(policy).map_err(CliError::input)?;
    Ok(Contender { name: policy.to_string(), scenario })
}

/// The winner in the product's own words, and who cannot be told from it.
fn deployed(product: &Product, comparison: &Comparison, contenders: &[Contender]) -> String {
    let best = &comparison.ranking[0];
    let equals = comparison.ranking[1..].iter().filter(|ranked| ranked.group == best.group);
    let equals: Vec<&str> = equals.map(|ranked| ranked.name.as_str()).collect();
    let equals = match equals.is_empty() {
        _ if comparison.repeat == 1 => " (one repetition: nothing can be said of chance)".into(),
        true => String::new(),
        false => format!(" (cannot be told from it: {})", equals.join(", ")),
    };
    let winner = contenders.iter().find(|contender| contender.name == best.name);
    let written = winner.and_then(|winner| {
        let router = &winner.scenario.router;
        let chosen = Chosen {
            parameters: &router.parameters,
            kv_index: router.reads_kv_events.then_some(router.impairments.kv_index),
            block_size: winner.scenario.replicas[0].facts.engine.block_size,
        };
        product.configuration(&best.name, chosen)
    });
    let Some(Written { text, unsaid }) = written else { return String::new() };
    let by_hand: Vec<String> = unsaid.iter().map(|(key, value)| format!("# {key} = {value}\n")).collect();
    let by_hand = match by_hand.is_empty() {
        true => String::new(),
        false => {
            format!("# set by hand, as {} has it; the best had:\n{}", product.name, by_hand.concat())
        }
    };
    format!("\nBest that {} offers here: {}{equals}\n\n{by_hand}{text}", product.name, best.name)
}

/// What is asked for, as [`contenders`] has it; without any of it the scenario's own policy alone.
pub(super) fn contenders_or_own(loaded: &Loaded, asked: &[String]) -> Result<Vec<Contender>, CliError> {
    let scenario = loaded.resolve().map_err(CliError::input)?;
    let variants = loaded.variant_names().map_err(CliError::input)?;
    if asked.is_empty() && loaded.file.policies.is_empty() && variants.is_empty() {
        return Ok(vec![Contender { name: scenario.router.policy.clone(), scenario }]);
    }
    Ok(contenders(loaded, asked)?.0)
}

/// What is compared: the policies asked for and the variants; all policies where neither is named. Also
/// returns the names of the policies, so that the resolved scenario compares the same again.
pub(super) fn contenders(
    loaded: &Loaded,
    asked: &[String],
) -> Result<(Vec<Contender>, Vec<String>), CliError> {
    // A mistake of the file is told with its place in it, before names are taken from it.
    loaded.resolve().map_err(CliError::input)?;
    let variants = loaded.variant_names().map_err(CliError::input)?;
    let all = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_string).collect();
    let policies: Vec<String> = if asked == ["all"] {
        all(&mut POLICIES.iter().map(|policy| policy.name))
    } else if !asked.is_empty() {
        let names = asked.iter().map(|name| name.trim()).filter(|name| !name.is_empty());
        names.map(str::to_string).collect()
    } else if !loaded.file.policies.is_empty() || !variants.is_empty() {
        loaded.file.policies.clone()
    } else {
        all(&mut COMPARED.into_iter())
    };
    let mut contenders: Vec<Contender> = Vec::new();
    if policies.is_empty() && variants.is_empty() {
        let help = "name some, such as --policies round-robin,least-request, or all";
        return Err(CliError::Input(format!("--policies: no policy is named\nhelp: {help}")));
    }
    for policy in &policies {
        if policies::find(policy).is_err() {
            let known: Vec<&str> = POLICIES.iter().map(|policy| policy.name).collect();
            return Err(CliError::Input(format!(
                "--policies: unknown policy `{policy}`\nhelp: {} (`tailcast list policies` shows all)",
                nearest_or_all(policy, &known)
            )));
        }
        if contenders.iter().any(|contender| contender.name == *policy) {
            return Err(CliError::Input(format!("--policies: `{policy}` is named twice")));
        }
        contenders.push(with_policy(loaded, policy)?);
    }
    for (index, name) in variants.into_iter().enumerate() {
        let scenario = loaded.with_variant(index).map_err(CliError::input)?;
        if let Some(first) = contenders.first().filter(|first| first.scenario.repeat != scenario.repeat) {
            let repeat = first.scenario.repeat;
            return Err(CliError::Input(format!("variant `{name}`: all contenders repeat {repeat} times")));
        }
        contenders.push(Contender { name, scenario });
    }
    Ok((contenders, policies))
}
