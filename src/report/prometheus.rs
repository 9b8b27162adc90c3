//! `/metrics` pages as the replicas' servers would show them, in Prometheus' text format.
//!
//! Knows the metrics of vLLM's engine that a simulation has, by their names and with their bounds (`vllm/v1/metrics/loggers.py`).
//! Does not know metrics of what is not simulated, such as HTTP.

use std::fmt::Write;

use crate::observe::{GapRun, Observer, StepRun};
use crate::request::{Finish, Outcome};
use crate::signals::Signals;
use crate::time::{Span, Time};

/// Bounds of the time to the first token, seconds.
const FIRST_TOKEN_S: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
/// Bounds of times between tokens, seconds.
const TOKEN_S: [f64; 19] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
/// Bounds of whole requests, seconds.
const REQUEST_S: [f64; 21] = [
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
/// Bounds of tokens in a step.
const STEP_TOKENS: [f64; 13] =
    [1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

/// Counts by upper bounds.
#[derive(Clone, Debug)]
struct Buckets {
    bounds: Vec<f64>,
    counts: Vec<u64>,
    sum: f64,
}

impl Buckets {
    fn new(bounds: &[f64]) -> Buckets {
        Buckets { bounds: bounds.to_vec(), counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// 1, 2, 5, 10, ... up to the longest that fits the model.
    fn of_tokens(max_model_len: u32) -> Buckets {
        let powers = (0..10).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        Buckets::new(&powers.take_while(|bound| *bound <= f64::from(max_model_len)).collect::<Vec<f64>>())
    }

    fn add(&mut self, value: f64, count: u64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += count;
        self.sum += value * count as f64;
    }
}

/// Listens to one replica for what its gauges do not tell.
#[derive(Clone, Debug)]
pub struct Meter {
    token_gaps: Buckets,
    step_tokens: Buckets,
}

impl Default for Meter {
    fn default() -> Self {
        Meter { token_gaps: Buckets::new(&TOKEN_S), step_tokens: Buckets::new(&STEP_TOKENS) }
    }
}

impl Observer for Meter {
    fn steps(&mut self, run: &StepRun<'_>) {
        self.step_tokens.add(f64::from(run.decodes + run.prefill_tokens), run.count);
    }

    fn token_gaps(&mut self, gaps: &GapRun) {
        for step in 0..gaps.steps {
            self.token_gaps.add((gaps.first + gaps.growth * step).as_s(), gaps.count);
        }
    }
}

/// One replica at the moment of the scrape.
#[derive(Clone, Debug)]
pub struct Scraped {
    /// As its server names it.
    pub model: String,
    /// Longest sequence it takes.
    pub max_model_len: u32,
    /// Its gauges and counters.
    pub signals: Signals,
    /// What was heard of its steps up to then.
    pub meter: Meter,
    /// Prompt tokens of all tries that had given a first token by then.
    pub prompt_tokens: u64,
}

/// The pages of all replicas in one, told apart by the label `instance`, at `at`.
pub fn page(replicas: &[Scraped], outcomes: &[Outcome], at: Time) -> String {
    let mut page = Page { text: String::new(), replicas };
    page.plain("num_requests_running", "gauge", "Requests in execution batches.", |replica| {
        f64::from(replica.signals.running)
    });
    page.plain("num_requests_waiting", "gauge", "Requests waiting to be processed.", |replica| {
        f64::from(replica.signals.waiting)
    });
    page.plain("kv_cache_usage_perc", "gauge", "Share of KV-cache blocks in use, 1 is all.", |replica| {
        replica.signals.kv_cache_usage()
    });
    page.plain("prefix_cache_queries_total", "counter", "Prefix cache queries, in tokens.", |replica| {
        replica.signals.prefix_cache_queries as f64
    });
    page.plain("prefix_cache_hits_total", "counter", "Prefix cache hits, in tokens.", |replica| {
        replica.signals.prefix_cache_hits as f64
    });
    page.plain("num_preemptions_total", "counter", "Preemptions by the engine.", |replica| {
        replica.signals.preemptions as f64
    });
    page.plain("generation_tokens_total", "counter", "Tokens generated.", |replica| {
        replica.signals.generation_tokens as f64
    });
    let of = |server: usize| outcomes.iter().filter(move |outcome| outcome.replica == Some(server as u32));
    let first_by = move |outcome: &&Outcome| {
        outcome.engine.as_ref().and_then(|engine| engine.first_token).is_some_and(|first| first <= at)
    };
    let done_by = move |outcome: &&Outcome| {
        outcome.finish.is_complete() && outcome.engine.as_ref().is_some_and(|engine| engine.done <= at)
    };
    page.plain("prompt_tokens_total", "counter", "Prompt tokens processed.", |replica| {
        replica.prompt_tokens as f64
    });
    let reasons = [("finished_reason", "stop", Finish::Stop), ("finished_reason", "length", Finish::Length)];
    page.numbered(
        "request_success_total",
        "counter",
        "Requests processed to their end.",
        &reasons,
        &|server, reason| {
            of(server).filter(done_by).filter(|outcome| Some(outcome.finish) == reason).count() as f64
        },
    );
    let seconds = |bounds: &[f64], of: &dyn Fn(usize) -> Vec<Option<Span>>| {
        let one = |server| {
            let mut buckets = Buckets::new(bounds);
            of(server).into_iter().flatten().for_each(|span| buckets.add(span.as_s(), 1));
            buckets
        };
        (0..replicas.len()).map(one).collect::<Vec<Buckets>>()
    };
    let ended = |of_one: fn(&Outcome) -> Option<Span>| {
        seconds(&REQUEST_S, &|server| of(server).filter(done_by).map(of_one).collect())
    };
    let first =
        seconds(&FIRST_TOKEN_S, &|server| of(server).filter(first_by).map(Outcome::engine_ttft).collect());
    page.histogram("time_to_first_token_seconds", "Time to first token, seconds.", &first);
    let gaps: Vec<Buckets> = replicas.iter().map(|replica| replica.meter.token_gaps.clone()).collect();
    page.histogram("inter_token_latency_seconds", "Time between tokens, seconds.", &gaps);
    let per_token = |outcome: &Outcome| {
        let engine = outcome.engine.as_ref()?;
        let gaps = u64::from(engine.output_tokens.checked_sub(1)?);
        (gaps > 0).then_some(())?;
        Some((engine.done - engine.first_token?).scale(1, gaps))
    };
    let tpot = seconds(&TOKEN_S, &|server| of(server).filter(done_by).map(per_token).collect());
    page.histogram(
        "request_time_per_output_token_seconds",
        "Time per output token of a request, seconds.",
        &tpot,
    );
    page.histogram(
        "e2e_request_latency_seconds",
        "From a request's arrival to its end, seconds.",
        &ended(|outcome| Some(outcome.engine.as_ref()?.done - outcome.arrived?)),
    );
    page.histogram(
        "request_queue_time_seconds",
        "Time in the WAITING phase, seconds.",
        &ended(|outcome| outcome.engine.as_ref().and_then(|engine| Some(engine.scheduled? - engine.queued))),
    );
    page.histogram(
        "request_prefill_time_seconds",
        "Time in the PREFILL phase, seconds.",
        &ended(|outcome| {
            outcome.engine.as_ref().and_then(|engine| Some(engine.first_token? - engine.scheduled?))
        }),
    );
    page.histogram(
        "request_decode_time_seconds",
        "Time in the DECODE phase, seconds.",
        &ended(|outcome| outcome.engine.as_ref().and_then(|engine| Some(engine.done - engine.first_token?))),
    );
    page.histogram(
        "request_inference_time_seconds",
        "Time in the RUNNING phase, seconds.",
        &ended(|outcome| outcome.engine.as_ref().and_then(|engine| Some(engine.done - engine.scheduled?))),
    );
    let tokens = |of_one: fn(&Outcome) -> u32| {
        let one = |(server, replica): (usize, &Scraped)| {
            let mut buckets = Buckets::of_tokens(replica.max_model_len);
            of(server).filter(done_by).for_each(|outcome| buckets.add(f64::from(of_one(outcome)), 1));
            buckets
        };
        replicas.iter().enumerate().map(one).collect::<Vec<Buckets>>()
    };
    page.histogram(
        "request_prompt_tokens",
        "Prompt tokens of a request.",
        &tokens(|outcome| outcome.prompt_tokens),
    );
    page.histogram(
        "request_generation_tokens",
        "Tokens generated for a request.",
        &tokens(Outcome::output_tokens),
    );
    let steps: Vec<Buckets> = replicas.iter().map(|replica| replica.meter.step_tokens.clone()).collect();
    page.histogram("iteration_tokens_total", "Tokens of an engine step.", &steps);
    page.text
}

struct Page<'a> {
    text: String,
    replicas: &'a [Scraped],
}

impl Page<'_> {
    fn head(&mut self, metric: &str, kind: &str, help: &str) {
        // A String takes all that is written to it.
        let _ = write!(self.text, "# HELP vllm:{metric} {help}\n# TYPE vllm:{metric} {kind}\n");
    }

    fn line(&mut self, metric: &str, server: usize, label: Option<(&str, &str)>, value: f64) {
        let model = self.replicas[server].model.replace('\\', "\\\\").replace('"', "\\\"");
        let own = label.map_or(String::new(), |(key, value)| format!(",{key}=\"{value}\""));
        let labels = format!("model_name=\"{model}\",engine=\"0\",instance=\"replica-{server}\"{own}");
        let _ = writeln!(self.text, "vllm:{metric}{{{labels}}} {value}");
    }

    fn plain(&mut self, metric: &str, kind: &str, help: &str, value: fn(&Scraped) -> f64) {
        self.head(metric, kind, help);
        for (server, replica) in self.replicas.iter().enumerate() {
            self.line(metric, server, None, value(replica));
        }
    }

    /// A line a replica, or a line a replica and label.
    fn numbered(
        &mut self,
        metric: &str,
        kind: &str,
        help: &str,
        labels: &[(&str, &str, Finish)],
        value: &dyn Fn(usize, Option<Finish>) -> f64,
    ) {
        self.head(metric, kind, help);
        for server in 0..self.replicas.len() {
            if labels.is_empty() {
                self.line(metric, server, None, value(server, None));
            }
            for (key, label, finish) in labels {
                self.line(metric, server, Some((key, label)), value(server, Some(*finish)));
            }
        }
    }

    fn histogram(&mut self, metric: &str, help: &str, buckets: &[Buckets]) {
        self.head(metric, "histogram", help);
        for (server, buckets) in buckets.iter().enumerate() {
            let mut cumulative = 0;
            let ends = buckets.bounds.iter().map(f64::to_string).chain(["+Inf".to_string()]);
            for (end, count) in ends.zip(&buckets.counts) {
                cumulative += count;
                self.line(&format!("{metric}_bucket"), server, Some(("le", &end)), cumulative as f64);
            }
            self.line(&format!("{metric}_sum"), server, None, buckets.sum);
            self.line(&format!("{metric}_count"), server, None, cumulative as f64);
        }
    }
}
