//! When requests, or sessions, come: a process in its own time, and a rate that changes over the day.
//!
//! A process draws gaps of mean one. Its own time runs as fast as the rate of the moment, so any process can follow any
//! rate: a request comes when the integral of the rate has grown by the gap. Knows nothing of lengths.

use std::f64::consts::TAU;

use rand::RngExt;
use rand::distr::Distribution;
use rand_distr::{Exp1, Gamma, Weibull};
use statrs::function::gamma::gamma;

use crate::random::{Purpose, Seed, Stream};
use crate::time::{Span, Time};

/// When requests are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrivals {
    /// Mean arrivals a second, before it is modulated.
    pub rate_per_s: f64,
    /// Gaps between them.
    pub process: ArrivalProcess,
    /// Factors on the rate, multiplied.
    pub modulations: Vec<Modulation>,
}

/// Gaps between arrivals.
#[derive(Clone, Debug, PartialEq)]
pub enum ArrivalProcess {
    /// Equal gaps.
    Deterministic,
    /// Exponential gaps.
    Poisson,
    /// Gamma gaps with this coefficient of variation: above 1 is burstier than Poisson.
    Gamma {
        /// Standard deviation of the gaps over their mean.
        cv: f64,
    },
    /// Weibull gaps with this coefficient of variation.
    Weibull {
        /// Standard deviation of the gaps over their mean.
        cv: f64,
    },
    /// Markov-modulated Poisson: exponential gaps at the rate of the current state; states follow in order.
    Mmpp {
        /// The states.
        states: Vec<State>,
    },
}

/// A state of a Markov-modulated process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Arrivals a second, relative to the mean of all states.
    pub factor: f64,
    /// Mean of its exponential duration, in seconds.
    pub mean_duration_s: f64,
}

/// How the rate changes with time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Modulation {
    /// 1 + amplitude sin(2 pi (t - phase) / period).
    Diurnal {
        /// Seconds of a whole day.
        period_s: f64,
        /// 0 is flat, 1 falls to nothing.
        amplitude: f64,
        /// When the rate first rises through its mean, in seconds.
        phase_s: f64,
    },
    /// From one factor to another, in a straight line; constant before and after.
    Ramp {
        /// Where it begins.
        start_s: f64,
        /// Where it ends.
        end_s: f64,
        /// Factor before.
        from: f64,
        /// Factor after.
        to: f64,
    },
    /// A factor for a while.
    Spike {
        /// Where it begins.
        at_s: f64,
        /// How long it lasts.
        duration_s: f64,
        /// The factor.
        factor: f64,
    },
}

impl Modulation {
    fn factor(&self, at_s: f64) -> f64 {
        match *self {
            Modulation::Diurnal { period_s, amplitude, phase_s } => {
                (1.0 + amplitude * (TAU * (at_s - phase_s) / period_s).sin()).max(0.0)
            }
            Modulation::Ramp { start_s, end_s, from, to } => {
                let share = ((at_s - start_s) / (end_s - start_s)).clamp(0.0, 1.0);
                from + (to - from) * share
            }
            Modulation::Spike { at_s: start_s, duration_s, factor } => {
                if (start_s..start_s + duration_s).contains(&at_s) { factor } else { 1.0 }
            }
        }
    }

    /// A time within which it changes little, in seconds.
    fn resolution_s(&self) -> f64 {
        match *self {
            Modulation::Diurnal { period_s, .. } => period_s / 1_000.0,
            Modulation::Ramp { start_s, end_s, .. } => (end_s - start_s) / 1_000.0,
            Modulation::Spike { duration_s, .. } => duration_s / 200.0,
        }
    }
}

/// Draws one arrival after another.
pub(super) struct ArrivalDraws {
    gaps: Gaps,
    clock: Clock,
}

impl ArrivalDraws {
    pub(super) fn new(arrivals: &Arrivals, seed: Seed) -> ArrivalDraws {
        let gaps = Gaps::new(&arrivals.process, seed.stream(Purpose::Arrivals, 0));
        ArrivalDraws { gaps, clock: Clock::new(arrivals, seed) }
    }

    /// When the next one comes.
    pub(super) fn next(&mut self) -> Time {
        let gap = self.gaps.next();
        self.clock.after(gap)
    }
}

/// Gaps with mean 1.
struct Gaps {
    kind: GapKind,
    stream: Stream,
}

enum GapKind {
    Equal,
    Exponential,
    Gamma(Gamma<f64>),
    Weibull(Weibull<f64>),
}

impl Gaps {
    fn new(process: &ArrivalProcess, stream: Stream) -> Gaps {
        let kind = match process {
            ArrivalProcess::Deterministic => GapKind::Equal,
            ArrivalProcess::Poisson | ArrivalProcess::Mmpp { .. } => GapKind::Exponential,
            ArrivalProcess::Gamma { cv } => {
                let shape = (cv * cv).recip();
                GapKind::Gamma(Gamma::new(shape, cv * cv).expect("a validated coefficient of variation"))
            }
            ArrivalProcess::Weibull { cv } => {
                let shape = weibull_shape(*cv);
                let scale = gamma(1.0 + shape.recip()).recip();
                GapKind::Weibull(Weibull::new(scale, shape).expect("a validated coefficient of variation"))
            }
        };
        Gaps { kind, stream }
    }

    fn next(&mut self) -> f64 {
        match &self.kind {
            GapKind::Equal => 1.0,
            GapKind::Exponential => Exp1.sample(&mut self.stream),
            GapKind::Gamma(gamma) => gamma.sample(&mut self.stream),
            GapKind::Weibull(weibull) => weibull.sample(&mut self.stream),
        }
    }
}

/// The shape of a Weibull distribution with this coefficient of variation, by bisection: it falls as the shape grows.
pub(crate) fn weibull_shape(cv: f64) -> f64 {
    let of = |shape: f64| {
        let (first, second) = (gamma(1.0 + 1.0 / shape), gamma(1.0 + 2.0 / shape));
        (second / (first * first) - 1.0).max(0.0).sqrt()
    };
    let (mut low, mut high) = (0.05f64, 200.0f64);
    for _ in 0..200 {
        let middle = (low * high).sqrt();
        if of(middle) > cv { low = middle } else { high = middle }
    }
    (low * high).sqrt()
}

/// The process's own time against that of the wall.
struct Clock {
    rate_per_s: f64,
    modulations: Vec<Modulation>,
    states: Option<States>,
    /// Time is integrated in pieces of this length; none where the rate never changes.
    resolution_s: Option<f64>,
    /// Where the current piece begins, and the own time there.
    piece_s: f64,
    /// Own time that passes in it.
    piece: f64,
    /// How much of it has passed.
    passed: f64,
    /// Where time stands with a rate that never changes.
    at: Time,
}

/// The path of a Markov-modulated process.
struct States {
    states: Vec<State>,
    current: usize,
    until_s: f64,
    stream: Stream,
}

impl Clock {
    fn new(arrivals: &Arrivals, seed: Seed) -> Clock {
        let states = match &arrivals.process {
            ArrivalProcess::Mmpp { states } => {
                let stream = seed.stream(Purpose::Modulation, 0);
                let mut path =
                    States { states: states.clone(), current: states.len() - 1, until_s: 0.0, stream };
                path.switch();
                Some(path)
            }
            _ => None,
        };
        let of_states = states.iter().flat_map(|path| &path.states).map(|state| state.mean_duration_s / 20.0);
        let finest = arrivals.modulations.iter().map(Modulation::resolution_s).chain(of_states);
        let resolution_s = finest.reduce(f64::min);
        let mut clock = Clock {
            rate_per_s: arrivals.rate_per_s,
            modulations: arrivals.modulations.clone(),
            states,
            resolution_s,
            piece_s: 0.0,
            piece: 0.0,
            passed: 0.0,
            at: Time::ZERO,
        };
        if let Some(resolution_s) = resolution_s {
            clock.piece = clock.own_time(0.0, resolution_s);
        }
        clock
    }

    /// When `gap` more of the own time has passed.
    fn after(&mut self, gap: f64) -> Time {
        let Some(resolution_s) = self.resolution_s else {
            // Summed as spans, so that the draws of a plain process never depend on how they are summed.
            self.at += Span::from_s_f64(gap / self.rate_per_s);
            return self.at;
        };
        let mut left = gap;
        while self.piece - self.passed < left {
            left -= self.piece - self.passed;
            self.piece_s += resolution_s;
            self.piece = self.own_time(self.piece_s, resolution_s);
            self.passed = 0.0;
            if self.piece_s > LATEST_S {
                break;
            }
        }
        self.passed += left;
        let share = if self.piece > 0.0 { (self.passed / self.piece).min(1.0) } else { 1.0 };
        Time::ZERO + Span::from_s_f64(self.piece_s + share * resolution_s)
    }

    /// Own time that passes in a piece: the rate at its middle, and of states exactly.
    fn own_time(&mut self, from_s: f64, length_s: f64) -> f64 {
        let factor: f64 =
            self.modulations.iter().map(|modulation| modulation.factor(from_s + length_s / 2.0)).product();
        let states_s = self.states.as_mut().map_or(length_s, |states| states.weighed_s(from_s, length_s));
        self.rate_per_s * factor * states_s
    }
}

/// Behind this no run goes on: a rate that stays at nothing must end the search.
const LATEST_S: f64 = 9e6;

impl States {
    fn switch(&mut self) {
        self.current = (self.current + 1) % self.states.len();
        let duration: f64 = Exp1.sample(&mut self.stream);
        self.until_s += duration * self.states[self.current].mean_duration_s;
    }

    /// Seconds from `from_s` on, each weighed by the factor of its state. Pieces follow one another.
    fn weighed_s(&mut self, from_s: f64, length_s: f64) -> f64 {
        let (mut at, end, mut weighed) = (from_s, from_s + length_s, 0.0);
        loop {
            let until = self.until_s.min(end);
            weighed += (until - at).max(0.0) * self.states[self.current].factor;
            at = at.max(until);
            if self.until_s >= end {
                return weighed;
            }
            self.switch();
        }
    }
}

/// Whole seconds or tenths, drawn: think time between turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Think {
    /// Always the same.
    Fixed {
        /// Seconds.
        seconds: f64,
    },
    /// Exponential.
    Exponential {
        /// Mean in seconds.
        mean_s: f64,
    },
    /// Log-normal by mean and standard deviation.
    LogNormal {
        /// Mean in seconds.
        mean_s: f64,
        /// Standard deviation in seconds.
        std_s: f64,
    },
}

impl Think {
    pub(super) fn draw(&self, stream: &mut Stream) -> Span {
        Span::from_s_f64(match *self {
            Think::Fixed { seconds } => seconds,
            Think::Exponential { mean_s } => {
                let unit: f64 = Exp1.sample(stream);
                unit * mean_s
            }
            Think::LogNormal { mean_s, std_s } => {
                let variance = (1.0 + (std_s / mean_s).powi(2)).ln();
                let normal: f64 = rand_distr::StandardNormal.sample(stream);
                (mean_s.ln() - variance / 2.0 + variance.sqrt() * normal).exp()
            }
        })
    }
}

/// A moment within `span`, all equally likely.
pub(super) fn within(span: Span, stream: &mut Stream) -> Time {
    Time::ZERO + Span::from_ps(stream.random_range(0..=span.as_ps()))
}
