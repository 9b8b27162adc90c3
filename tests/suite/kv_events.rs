//! KV events say what is in the cache: whoever adds them up knows what a look-up finds, on random engines.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tailcast::replica::block_keys::leading_keys;
use tailcast::replica::{Announced, EngineEvent, KvEvent, Limit, Path, Recorder, Scheduler, Step};
use tailcast::request::RequestId;
use tailcast::time::Time;

use crate::random_engine::{Case, case};

/// Adds events up, and holds the sum against the engine whenever it has published.
struct Listener<'a> {
    case: &'a Case,
    copies: BTreeMap<u64, u32>,
    removed: u64,
    stored: u64,
}

impl Recorder for Listener<'_> {
    fn scheduled(&mut self, _: u64, _: Time, _: &Step, _: &Scheduler) {}
    fn load_finished(&mut self, _: RequestId) {}
    fn aborted(&mut self, _: RequestId) {}

    fn published(&mut self, _: Time, events: Vec<KvEvent>) {
        for event in events {
            match event {
                KvEvent::Stored(key) => {
                    *self.copies.entry(key).or_default() += 1;
                    self.stored += 1;
                }
                KvEvent::Removed(key) => {
                    let copies = self.copies.get_mut(&key).filter(|copies| **copies > 0);
                    *copies.expect("what is removed was stored") -= 1;
                    self.removed += 1;
                }
            }
        }
    }

    fn processed(&mut self, _: u64, _: Time, _: &[EngineEvent], scheduler: &Scheduler) {
        let block_size = self.case.engine.block_size;
        assert_eq!(self.removed, scheduler.evictions());
        let mut keys = Vec::new();
        for offer in &self.case.offers {
            let (content, prompt_tokens) = (&offer.request.content, offer.request.prompt_tokens);
            let blocks = content.tokens().min(prompt_tokens) / block_size;
            leading_keys(offer.request.id, content, block_size, blocks, &mut keys);
            let told = keys.iter().take_while(|key| self.copies.get(key).is_some_and(|copies| *copies > 0));
            let found = scheduler.cached_tokens(offer.request.id, content, prompt_tokens);
            assert_eq!(told.count() as u32 * block_size, found, "{:?}", offer.request.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    /// Copies of the same content are events of their own; what was stored and not removed is there, and nothing else is.
    #[test]
    fn what_was_stored_and_not_removed_is_there(case in case()) {
        let mut replica = case.empty_replica_on(Path::Literal).publishing(Announced::All);
        case.deliver(&mut replica, Time::ZERO, Time::MAX);
        let mut listener = Listener { case: &case, copies: BTreeMap::new(), removed: 0, stored: 0 };
        replica.advance_recorded(Limit::Time(Time::MAX), &mut listener);
        prop_assert!(case.engine.enable_prefix_caching || listener.stored == 0);
        let computed = replica.take_events().filter(|event| matches!(event, EngineEvent::Ended(ended) if ended.output_tokens > 1));
        prop_assert!(!case.engine.enable_prefix_caching || computed.count() == 0 || case.engine.block_size > 1 || listener.stored > 0);
    }
}
