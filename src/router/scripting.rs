//! Scripts that users write: the language, what it can see, and its limits.
//!
//! Knows one Rhai program and calls its functions. A script has numbers of a request and of replicas, a state of its own
//! (`this`), seeded chance (`random()`), and nothing else: no files, no clock, no output, so many operations a call and no
//! more. Errors say file, line and column.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand::RngExt;
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, FuncArgs, Position, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Glance, Mine, Server};
use crate::random::{Purpose, Seed};
use crate::request::Arrival;
use crate::signals::{Glimpse, Signals};
use crate::time::Time;

/// Values that a scenario gives to a script's constants, by name.
pub type Constants = BTreeMap<String, Constant>;

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, a text, or true or false")]
pub enum Constant {
    /// True or false.
    Choice(bool),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// Fields of a request.
const REQUEST: [&str; 8] =
    ["id", "now_s", "prompt_tokens", "class", "priority", "session", "max_tokens", "predicted_output_tokens"];

/// Fields of a replica that are not gauges.
const REPLICA: [&str; 3] = ["index", "in_flight", "cached_tokens"];

/// What the simulation calls, and with how many parameters.
const CALLED: [(&str, usize); 4] = [("score", 2), ("choose", 2), ("sent", 2), ("ended", 3)];

/// Operations of one call.
pub const MOST_OPERATIONS: u64 = 1_000_000;

/// A compiled script with its state.
#[derive(Debug)]
pub struct Script {
    file: String,
    source: String,
    engine: Engine,
    program: AST,
    state: Dynamic,
    /// Whether it names gauges, and whether cached tokens.
    pub reads_gauges: bool,
    /// Whether it names what is cached.
    pub reads_cached_tokens: bool,
}

/// A request as scripts see it.
#[derive(Clone, Debug)]
struct ScriptRequest {
    arrival: Arrival,
    now: Time,
}

/// A replica as scripts see it.
#[derive(Clone, Copy, Debug)]
pub struct ScriptReplica {
    index: Server,
    mine: Mine,
    signals: Signals,
    age_s: f64,
    cached_tokens: u32,
}

/// Getters of replicas that read gauges.
const GAUGES: [&str; 7] = [
    "running",
    "waiting",
    "kv_cache_usage",
    "waiting_prompt_tokens",
    "free_blocks",
    "report_age_s",
    "sent_since_report",
];

/// Whether the program has the word, comments left out.
fn names(source: &str, word: &str) -> bool {
    let code = source.lines().map(|line| line.split("//").next().unwrap_or(""));
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    code.flat_map(|line| line.split(|character| !is_word(character))).any(|name| name == word)
}

impl Script {
    /// Compiles a script; `file` is what errors call it. `constants` replace those that it has of the same names.
    ///
    /// # Errors
    /// If it is not Rhai, in the form `file:line:column: reason`; if a constant is none of its own; if a function that would be called
    /// has other parameters.
    pub fn compile(
        file: &str,
        source: &str,
        constants: &Constants,
        seed: Seed,
        gateway: u64,
    ) -> Result<Script, String> {
        let mut engine = Engine::new();
        engine.set_max_operations(MOST_OPERATIONS);
        engine.set_max_call_levels(32);
        engine.set_max_expr_depths(64, 64);
        engine.set_max_string_size(10_000);
        engine.set_max_array_size(100_000);
        engine.set_max_map_size(100_000);
        for word in ["eval", "print", "debug"] {
            engine.disable_symbol(word);
        }
        register(&mut engine);
        // The language's own would stop the simulation, and not the simulated time.
        engine.register_fn("sleep", |_: i64| no_clock());
        engine.register_fn("sleep", |_: f64| no_clock());
        let stream = Arc::new(Mutex::new(seed.stream(Purpose::Routing, gateway)));
        engine.register_fn("random", move || stream.lock().map_or(0.0, |mut stream| stream.random::<f64>()));
        let compiled = |scope: &Scope| {
            engine
                .compile_with_scope(scope, source)
                .map_err(|error| at(file, error.position(), &error.err_type().to_string()))
        };
        // Functions see constants that were there when they were compiled, and no others.
        let scope = with_constants(file, &compiled(&Scope::new())?, constants)?;
        let program = compiled(&scope)?;
        check_functions(file, &program)?;
        Ok(Script {
            file: file.to_string(),
            source: source.to_string(),
            engine,
            program,
            state: Dynamic::from_map(Default::default()),
            reads_gauges: GAUGES.iter().any(|gauge| names(source, gauge)),
            reads_cached_tokens: names(source, "cached_tokens"),
        })
    }

    /// Whether it has a function of this name with so many parameters.
    pub fn has(&self, function: &str, parameters: usize) -> bool {
        self.program.iter_functions().any(|known| known.name == function && known.params.len() == parameters)
    }

    /// Where a function stands, as errors have it: its answers have no place of their own.
    pub fn place(&self, function: &str) -> String {
        let begins = |line: &str| {
            let rest = line.split("//").next().unwrap_or("").trim_start().strip_prefix("fn ");
            rest.is_some_and(|rest| rest.trim_start().split('(').next().map(str::trim) == Some(function))
        };
        match self.source.lines().position(begins) {
            Some(line) => format!("{}:{}", self.file, line + 1),
            None => self.file.clone(),
        }
    }

    /// What it shows of a replica.
    pub fn replica(&self, server: Server, arrival: &Arrival, glance: &mut dyn Glance) -> ScriptReplica {
        let glimpse = if self.reads_gauges { glance.signals(server) } else { Glimpse::default() };
        let cached_tokens = if self.reads_cached_tokens { glance.cached_tokens(server, arrival) } else { 0 };
        ScriptReplica {
            index: server,
            mine: glance.mine(server),
            signals: glimpse.signals,
            age_s: glance.now().saturating_since(glimpse.taken_at).as_s(),
            cached_tokens,
        }
    }

    /// `score(request, replica)`: the greater the better.
    ///
    /// # Errors
    /// If the script fails, or answers anything but a number.
    pub fn score(&mut self, arrival: &Arrival, now: Time, replica: ScriptReplica) -> Result<f64, String> {
        let answer = self.call("score", (request(arrival, now), replica))?;
        let number = answer.as_float().or_else(|_| answer.as_int().map(|whole| whole as f64));
        match number {
            Ok(score) if score.is_nan() => {
                Err(format!("{}: `score` answered NaN for replica {}", self.place("score"), replica.index))
            }
            Ok(score) => Ok(score),
            Err(kind) => Err(format!("{}: `score` answered {kind}, expected a number", self.place("score"))),
        }
    }

    /// `choose(request, replicas)`: the index of a replica, "hold" or "reject".
    ///
    /// # Errors
    /// If the script fails.
    pub fn choose(
        &mut self,
        arrival: &Arrival,
        now: Time,
        replicas: Vec<ScriptReplica>,
    ) -> Result<Dynamic, String> {
        let replicas: rhai::Array = replicas.into_iter().map(Dynamic::from).collect();
        self.call("choose", (request(arrival, now), replicas))
    }

    /// `sent(request, index)`, where the script has it.
    ///
    /// # Errors
    /// If the script fails.
    pub fn sent(&mut self, arrival: &Arrival, now: Time, server: Server) -> Result<(), String> {
        self.call("sent", (request(arrival, now), server as i64)).map(|_| ())
    }

    /// `ended(id, index, output_tokens)`, where the script has it.
    ///
    /// # Errors
    /// If the script fails.
    pub fn ended(&mut self, id: u32, server: Server, output_tokens: u32) -> Result<(), String> {
        self.call("ended", (i64::from(id), server as i64, i64::from(output_tokens))).map(|_| ())
    }

    fn call(&mut self, function: &str, arguments: impl FuncArgs) -> Result<Dynamic, String> {
        let options = CallFnOptions::new().eval_ast(false).bind_this_ptr(&mut self.state);
        let answer: Result<Dynamic, Box<EvalAltResult>> =
            self.engine.call_fn_with_options(options, &mut Scope::new(), &self.program, function, arguments);
        answer.map_err(|error| {
            let (mut inner, mut place) = (&*error, error.position());
            // The place of the fault, and not of the call that led there.
            while let EvalAltResult::ErrorInFunctionCall(_, _, cause, _) = inner {
                inner = cause;
                place = if inner.position().is_none() { place } else { inner.position() };
            }
            let reason = match inner {
                EvalAltResult::ErrorTooManyOperations(_) => {
                    format!("`{function}` does not end within {MOST_OPERATIONS} operations")
                }
                other => {
                    let mut bare = other.to_string();
                    if let Some(place) = bare.rfind(" (line ") {
                        bare.truncate(place);
                    }
                    format!("{bare}{}", hint(other))
                }
            };
            // Where a fault has no place of its own, its function has one.
            let opens = |line: &str| line.trim_start().starts_with(&format!("fn {function}"));
            match self.source.lines().position(opens) {
                Some(line) if place.is_none() => format!("{}:{}: {reason}", self.file, line + 1),
                _ => at(&self.file, place, &reason),
            }
        })
    }
}

/// The constants that a program's functions see: its own literal ones, with values that a scenario gives.
fn with_constants(file: &str, program: &AST, given: &Constants) -> Result<Scope<'static>, String> {
    if let Some((name, ..)) = program.iter_literal_variables(false, true).next() {
        return Err(format!(
            "{file}: no function sees `let {name}` at the top; write `const {name} = ...`, or keep what changes in `this`"
        ));
    }
    let mut scope = Scope::new();
    let mut names = Vec::new();
    for (name, _, own) in program.iter_literal_variables(true, false) {
        let value = match given.get(name) {
            None => own,
            Some(Constant::Whole(number)) if own.is_float() => Dynamic::from_float(*number as f64),
            Some(Constant::Whole(number)) => Dynamic::from_int(*number),
            Some(Constant::Number(number)) => Dynamic::from_float(*number),
            Some(Constant::Choice(choice)) => Dynamic::from_bool(*choice),
            Some(Constant::Text(text)) => Dynamic::from(text.clone()),
        };
        names.push(name.to_string());
        scope.push_constant_dynamic(name.to_string(), value);
    }
    match given.keys().find(|key| !names.contains(key)) {
        Some(key) if names.is_empty() => {
            Err(format!("{file} has no constant `{key}`: write `const {key} = 1.0;` at its top"))
        }
        Some(key) => Err(format!("{file} has no constant `{key}`; it has {}", names.join(", "))),
        None => Ok(scope),
    }
}

/// A function that is nearly one of those that are called would never be.
fn check_functions(file: &str, program: &AST) -> Result<(), String> {
    for function in program.iter_functions() {
        let known = CALLED.iter().find(|(name, _)| function.name.eq_ignore_ascii_case(name));
        if let Some((name, parameters)) = known
            && (function.name != *name || function.params.len() != *parameters)
            && !program.iter_functions().any(|other| other.name == *name && other.params.len() == *parameters)
        {
            let has = function.params.join(", ");
            return Err(format!(
                "{file}: fn {}({has}) is never called; expected fn {name} with {parameters} parameters",
                function.name
            ));
        }
    }
    Ok(())
}

/// What there is, where a script asks for something that there is not.
fn hint(error: &EvalAltResult) -> String {
    let text = error.to_string();
    let known = |fields: &[&[&str]]| format!("; there are {}", fields.concat().join(", "));
    match error {
        _ if text.contains("registered for type 'Replica'") => known(&[&REPLICA, &GAUGES]),
        _ if text.contains("registered for type 'Request'") => known(&[&REQUEST]),
        EvalAltResult::ErrorVariableNotFound(..) => {
            "; functions see their parameters, `this`, and constants with literal values at the top".into()
        }
        EvalAltResult::ErrorFunctionNotFound(name, _) if name.contains("()") => {
            "; `()` is a value that is not known: `session`, `max_tokens` and `predicted_output_tokens` may be (the last is, unless \
             workload.prediction says otherwise)"
                .into()
        }
        _ => String::new(),
    }
}

fn no_clock() -> Result<(), Box<EvalAltResult>> {
    Err("a script has no clock to sleep by".into())
}

fn at(file: &str, place: Position, reason: &str) -> String {
    match (place.line(), place.position()) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}: {reason}"),
        (Some(line), None) => format!("{file}:{line}: {reason}"),
        _ => format!("{file}: {reason}"),
    }
}

fn request(arrival: &Arrival, now: Time) -> ScriptRequest {
    ScriptRequest { arrival: arrival.clone(), now }
}

/// A number, or nothing.
fn optional(value: Option<i64>) -> Dynamic {
    value.map_or(Dynamic::UNIT, Dynamic::from_int)
}

fn register(engine: &mut Engine) {
    type Request = ScriptRequest;
    type Replica = ScriptReplica;
    engine
        .register_type_with_name::<Request>("Request")
        .register_get("id", |request: &mut Request| i64::from(request.arrival.id.0))
        .register_get("now_s", |request: &mut Request| request.now.as_s())
        .register_get("prompt_tokens", |request: &mut Request| i64::from(request.arrival.prompt_tokens))
        .register_get("class", |request: &mut Request| i64::from(request.arrival.class))
        .register_get("priority", |request: &mut Request| i64::from(request.arrival.priority))
        // Sessions are hashes: scripts compare them and take remainders, so the sign bit is left out.
        .register_get("session", |request: &mut Request| {
            optional(request.arrival.session.map(|session| (session >> 1) as i64))
        })
        .register_get("max_tokens", |request: &mut Request| {
            optional(request.arrival.max_tokens.map(i64::from))
        })
        .register_get("predicted_output_tokens", |request: &mut Request| {
            optional(request.arrival.predicted_output_tokens.map(i64::from))
        });
    engine
        .register_type_with_name::<Replica>("Replica")
        .register_get("index", |replica: &mut Replica| replica.index as i64)
        .register_get("in_flight", |replica: &mut Replica| i64::from(replica.mine.in_flight))
        .register_get("sent_since_report", |replica: &mut Replica| i64::from(replica.mine.sent_since_report))
        .register_get("running", |replica: &mut Replica| i64::from(replica.signals.running))
        .register_get("waiting", |replica: &mut Replica| i64::from(replica.signals.waiting))
        .register_get("waiting_prompt_tokens", |replica: &mut Replica| {
            replica.signals.waiting_prompt_tokens as i64
        })
        .register_get("kv_cache_usage", |replica: &mut Replica| replica.signals.kv_cache_usage())
        .register_get("free_blocks", |replica: &mut Replica| {
            i64::from(replica.signals.kv_blocks_usable) - i64::from(replica.signals.kv_blocks_used)
        })
        .register_get("report_age_s", |replica: &mut Replica| replica.age_s)
        .register_get("cached_tokens", |replica: &mut Replica| i64::from(replica.cached_tokens));
}
