//! `script`: a policy of your own, in a file of Rhai.
//!
//! A script has `fn score(request, replica)`, whose greatest answer wins (equals by chance), or `fn choose(request, replicas)`,
//! which answers an index, "hold" or "reject". It may have `fn sent(request, index)` and `fn ended(id, index, output_tokens)`.
//! All share `this`, a map that stays. What a script names is what it sees: gauges as old as the scenario says, cached tokens
//! by KV events. docs/policies.md lists all fields. An error ends the run with file and line.

use rhai::Dynamic;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::scripting::{Constants, Script};
use super::{Candidates, Decision, Feedback, Glance, Picker, PolicyInfo, Router, Server, Sight, Ties, epp};
use crate::request::Arrival;
use crate::time::Time;

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// The script, relative to the scenario.
    pub file: String,
    /// Its text, in place of a file.
    pub source: String,
    /// Values of constants that it has, by name: they may be swept over.
    pub constants: Constants,
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "script",
    family: "your own",
    reads: "what the script names: own requests in flight, gauges, KV events, predicted output length",
    upstream: "none",
    default_freshness: Some(epp::FRESHNESS),
    build: |parameters, seed, gateway| {
        let Parameters { file, source, constants } = parameters.clone().try_into()?;
        if source.is_empty() {
            return Err(toml::de::Error::custom(
                "a script needs its text: router.parameters.file = \"my-policy.rhai\"",
            ));
        }
        let file = if file.is_empty() { "router.parameters.source".to_string() } else { file };
        let script =
            Script::compile(&file, &source, &constants, seed, gateway).map_err(toml::de::Error::custom)?;
        if script.has("score", 2) == script.has("choose", 2) {
            return Err(toml::de::Error::custom(format!(
                "{file}: expected either fn score(request, replica) or fn choose(request, replicas)"
            )));
        }
        Ok(Box::new(ScriptPolicy {
            holds: source.contains("\"hold\""),
            script,
            picker: Picker::new(Ties::Random, seed, gateway),
            scores: Vec::new(),
            failure: None,
        }))
    },
};

/// A script, and what went wrong with it.
#[derive(Debug)]
pub struct ScriptPolicy {
    script: Script,
    holds: bool,
    picker: Picker,
    scores: Vec<(Server, f64)>,
    failure: Option<String>,
}

impl ScriptPolicy {
    fn answer(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Result<Decision, String> {
        let (among, now) = (glance.candidates(), glance.now());
        if self.script.has("choose", 2) {
            let replicas = among.iter().map(|server| self.script.replica(server, arrival, glance)).collect();
            let answer = self.script.choose(arrival, now, replicas)?;
            return self.decision(&answer, &among);
        }
        self.scores.clear();
        for server in among.iter() {
            let replica = self.script.replica(server, arrival, glance);
            let score = self.script.score(arrival, now, replica)?;
            self.scores.push((server, -score));
        }
        Ok(Decision::Send(self.picker.least(self.scores.iter().copied())))
    }

    fn decision(&self, answer: &Dynamic, among: &Candidates) -> Result<Decision, String> {
        let place = || self.script.place("choose");
        if let Ok(index) = answer.as_int() {
            let server = usize::try_from(index).ok().filter(|server| among.contains(*server));
            return server.map(Decision::Send).ok_or_else(|| {
                let up: Vec<String> = among.iter().map(|server| server.to_string()).collect();
                format!("{}: `choose` answered replica {index}, expected one of {}", place(), up.join(", "))
            });
        }
        let word = answer.clone().into_string();
        match word.as_deref() {
            Ok("hold") => Ok(Decision::Hold),
            Ok("reject") => Ok(Decision::Reject),
            _ => Err(format!(
                "{}: `choose` answered {answer:?}, expected an index, \"hold\" or \"reject\"",
                place()
            )),
        }
    }
}

impl Router for ScriptPolicy {
    fn sight(&self) -> Sight {
        Sight {
            responses: true,
            signals: self.script.reads_gauges,
            kv_events: self.script.reads_cached_tokens,
            holds: self.holds,
            ..Sight::default()
        }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        if self.failure.is_some() {
            return Decision::Reject;
        }
        self.answer(arrival, glance).unwrap_or_else(|failure| {
            self.failure = Some(failure);
            Decision::Reject
        })
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        if self.failure.is_none() && self.script.has("sent", 2) {
            self.failure = self.script.sent(arrival, at, server).err();
        }
    }

    fn heard(&mut self, feedback: &Feedback) {
        let (id, server, output_tokens) = match *feedback {
            Feedback::FirstToken { .. } => return,
            Feedback::Completed { id, server, output_tokens, .. } => (id, server, output_tokens),
            Feedback::Failed { id, server, .. } => (id, server, 0),
        };
        if self.failure.is_none() && self.script.has("ended", 3) {
            self.failure = self.script.ended(id.0, server, output_tokens).err();
        }
    }

    fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;
    use crate::router::policies;
    use crate::router::tests::{Scene, policy, prompt};

    fn script(source: &str) -> Box<dyn Router> {
        policy("script", &format!("source = '''{source}'''"))
    }

    fn failure(source: &str) -> String {
        let mut router = script(source);
        let mut scene = Scene::in_flight(&[2, 1, 3]);
        assert_eq!(router.decide(&prompt(0, 1, 10), &mut scene), Decision::Reject);
        router.failure().unwrap().to_string()
    }

    #[test]
    fn a_score_is_a_policy() {
        let mut least = script("fn score(request, replica) { -replica.in_flight }");
        assert!(!least.sight().signals && !least.sight().kv_events);
        assert_eq!(Scene::in_flight(&[2, 1, 3]).send(&mut *least, &prompt(0, 1, 10)), 1);
        let mut cached =
            script("fn score(request, replica) { replica.cached_tokens - 100.0 * replica.waiting }");
        assert!(cached.sight().signals && cached.sight().kv_events);
        let mut scene = Scene::of(2);
        scene.cached = vec![0, 300];
        assert_eq!(scene.send(&mut *cached, &prompt(0, 1, 400)), 1);
        scene.signals[1].waiting = 4;
        assert_eq!(scene.send(&mut *cached, &prompt(0, 1, 400)), 0);
    }

    #[test]
    fn a_choice_has_a_state_and_hears_of_ends() {
        let source = r#"
            fn choose(request, replicas) {
                if request.prompt_tokens > 1000 { return "reject"; }
                if this.most == () { this.most = 0; }
                if this.most >= replicas.len { return "hold"; }
                this.most
            }
            fn sent(request, index) { this.most += 1; }
            fn ended(id, index, output_tokens) { this.most = index; }
        "#;
        let mut router = script(source);
        assert!(router.sight().holds);
        let mut scene = Scene::of(2);
        assert_eq!(scene.commit(&mut *router, &prompt(0, 1, 10)), 0);
        assert_eq!(scene.commit(&mut *router, &prompt(1, 1, 10)), 1);
        assert_eq!(router.decide(&prompt(2, 1, 10), &mut scene), Decision::Hold);
        assert_eq!(router.decide(&prompt(3, 1, 5_000), &mut scene), Decision::Reject);
        let id = prompt(1, 1, 10).id;
        router.heard(&Feedback::Completed { id, server: 1, at: scene.now, output_tokens: 5 });
        assert_eq!(scene.send(&mut *router, &prompt(2, 1, 10)), 1);
    }

    #[test]
    fn faults_are_told_with_their_place() {
        let endless = failure("fn score(request, replica) {\n    loop { }\n}");
        assert!(endless.starts_with("router.parameters.source:1:"), "{endless}");
        assert!(endless.contains("does not end within 1000000 operations"), "{endless}");
        let nan = failure("fn score(request, replica) { 0.0 / 0.0 }");
        assert!(nan.starts_with("router.parameters.source:1: `score` answered NaN for replica 0"), "{nan}");
        let unknown = failure("// Lucky.\nfn choose(request, replicas) { 7 }");
        let told = "router.parameters.source:2: `choose` answered replica 7, expected one of 0, 1, 2";
        assert!(unknown.starts_with(told), "{unknown}");
        let field = failure("fn score(request, replica) {\n  replica.queue\n}");
        assert!(field.starts_with("router.parameters.source:2:") && field.contains("queue"), "{field}");
        for seconds in ["1", "0.5"] {
            let sleep = failure(&format!("fn score(request, replica) {{ sleep({seconds}); 1 }}"));
            assert!(sleep.contains("has no clock"), "{sleep}");
        }
        let word = failure("fn score(request, replica) { \"good\" }");
        assert!(word.contains("expected a number"), "{word}");
    }

    #[test]
    fn what_is_no_script_is_refused_before_it_runs() {
        let refused = |parameters: &str| {
            let parameters = parameters.parse().unwrap();
            policies::build("script", &parameters, Seed(0), 0).err().unwrap().to_string()
        };
        assert!(
            refused("source = 'fn score(request, replica) { 1 + }'").contains(":1:34"),
            "{}",
            refused("source = 'fn score(request, replica) { 1 + }'")
        );
        assert!(refused("source = 'fn best(a) { 1 }'").contains("expected either fn score"));
        assert!(refused("").contains("router.parameters.file"));
        for word in ["eval(\"1\")", "print(1)"] {
            let refusal = refused(&format!("source = 'fn score(request, replica) {{ {word}; 1 }}'"));
            assert!(refusal.contains(word.split('(').next().unwrap()), "{refusal}");
        }
    }

    #[test]
    fn constants_are_seen_and_may_be_given() {
        let source =
            "const WEIGHT = 2.0; fn score(request, replica) { -replica.in_flight - WEIGHT * replica.index }";
        let of = |constants: &str| {
            policy("script", &format!("source = '{source}'\nconstants = {{ {constants} }}"))
        };
        // 2, 1 + 2, 0 + 4 against 2, 1 + 0, 0 + 0.
        assert_eq!(Scene::in_flight(&[2, 1, 0]).send(&mut *of(""), &prompt(0, 1, 10)), 0);
        assert_eq!(Scene::in_flight(&[2, 1, 0]).send(&mut *of("WEIGHT = 0"), &prompt(0, 1, 10)), 2);
        let refused = |parameters: &str| {
            let parameters = parameters.parse().unwrap();
            policies::build("script", &parameters, Seed(0), 0).err().unwrap().to_string()
        };
        let unknown = refused(&format!("source = '{source}'\nconstants = {{ WIEGHT = 1 }}"));
        assert!(unknown.contains("no constant `WIEGHT`; it has WEIGHT"), "{unknown}");
        let variable = refused("source = 'let a = 1; fn score(request, replica) { 1 }'");
        assert!(variable.contains("no function sees `let a`"), "{variable}");
        for (function, expected) in
            [("ended(id, index)", "ended with 3"), ("Sent(request, index)", "sent with 2")]
        {
            let never = refused(&format!("source = 'fn score(r, replica) {{ 1 }} fn {function} {{ }}'"));
            assert!(never.contains(expected), "{never}");
        }
        let field = failure("fn score(request, replica) { replica.queue }");
        assert!(field.contains("there are index, in_flight, cached_tokens, running"), "{field}");
        let unknown = failure("fn score(request, replica) { request.predicted_output_tokens.to_float() }");
        assert!(unknown.contains("workload.prediction"), "{unknown}");
    }

    #[test]
    fn chance_is_seeded() {
        let draws = || {
            let mut router = script("fn choose(request, replicas) { (random() * replicas.len).to_int() }");
            let mut scene = Scene::of(5);
            (0..20).map(|id| scene.send(&mut *router, &prompt(id, 1, 10))).collect::<Vec<_>>()
        };
        assert_eq!(draws(), draws());
        assert!(draws().iter().any(|server| *server != draws()[0]));
    }
}
