//! The products: what each offers, by its names.
//!
//! Knows names, flags and where a product's parameters are its own: SMG's `prefix_hash` takes 256 tokens and 150 points, its `manual`
//! forgets after four hours, its `power_of_two` weighs expected waits since August 2026; HAProxy and nginx tell equals apart in turn.

use super::{Offer, Product};
use crate::router::epp::pickers::PickerPlugin;
use crate::router::epp::scorers::ScorerPlugin;
use crate::router::{epp, epp_precise, predicted_latency, sticky_until_saturated};

/// A picker that goes by one scorer alone.
fn scored_by(scorer: ScorerPlugin) -> epp::Parameters {
    epp::Parameters { scorers: vec![scorer], ..epp::Parameters::default() }
}

/// llm-d's default blend before August 2026: queue, KV and prefix, and who was longest without a cold request.
const OPTIMIZED_BASELINE_2025: &str = "scorers = [{ type = \"queue-scorer\", weight = 2.0 }, { type = \"kv-cache-utilization-scorer\", \
    weight = 2.0 }, { type = \"prefix-cache-scorer\", weight = 3.0 }, { type = \"no-hit-lru-scorer\", weight = 2.0 }]";

/// All products, in order of name.
pub const PRODUCTS: &[Product] = &[
    Product {
        name: "aibrix",
        offers: &[
            Offer::of("random", "random"),
            Offer::of("least-request", "least-request"),
            Offer::of("drain-time", "load-balance"),
            Offer::of("least-kv", "least-kv-cache"),
            Offer::of("power-of-two", "power-of-two"),
            Offer::of("latency-average", "least-latency"),
            Offer::of("session-sticky", "session-affinity"),
            Offer::of("prefix-sigma", "prefix-cache"),
            Offer::of("preble-e2", "prefix-cache-preble"),
        ],
        frame: "# AIBrix gateway: for all requests, or for one by the header `routing-strategy`\nROUTING_ALGORITHM={}\n",
    },
    Product {
        name: "dynamo",
        offers: &[
            Offer::of("round-robin", "round-robin"),
            Offer::of("random", "random"),
            Offer::of("least-request", "least-loaded"),
            Offer::of("power-of-two", "power-of-two"),
            Offer::of("dynamo-kv", "kv").flags(&[
                ("overlap_score_credit", " --router-kv-overlap-score-credit {}"),
                ("prefill_load_scale", " --router-prefill-load-scale {}"),
                ("router_temperature", " --router-temperature {}"),
                ("router_ttl_s", " --router-ttl-secs {}"),
                ("use_kv_events=false", " --no-router-kv-events"),
            ]),
        ],
        frame: "python -m dynamo.frontend --router-mode {}\n",
    },
    Product {
        name: "envoy",
        offers: &[
            Offer::of("random", "RANDOM"),
            Offer::of("weighted-round-robin", "ROUND_ROBIN"),
            Offer::of(
                "power-of-two",
                "LEAST_REQUEST\n    least_request_lb_config: { choice_count: {choices=2} }",
            ),
            Offer::of(
                "session-hash",
                "RING_HASH\n    # and on the route: hash_policy: [{ header: { header_name: x-session-id } }]",
            )
            .with("RING_HASH", "without_session = \"random\""),
        ],
        frame: "clusters:\n  - name: vllm\n    lb_policy: {}\n",
    },
    Product {
        name: "haproxy",
        offers: &[
            Offer::of("weighted-round-robin", "balance roundrobin"),
            Offer::of("round-robin", "balance static-rr"),
            Offer::of("least-request", "balance leastconn").with("leastconn", "ties = \"rotating\""),
            Offer::of("power-of-two", "balance random({choices=2})"),
            Offer::of("session-hash", "balance hdr(x-session-id)\n    hash-type consistent")
                .with("hdr", "without_session = \"round-robin\""),
        ],
        frame: "backend vllm\n    {}\n    # server replica-0 10.0.0.1:8000 check\n",
    },
    Product {
        name: "llm-d",
        offers: &[
            Offer::of_plugins("random", || epp::Parameters {
                scorers: Vec::new(),
                picker: PickerPlugin::RandomPicker,
                ..epp::Parameters::default()
            }),
            Offer::of_plugins("least-queue", || scored_by(ScorerPlugin::QueueScorer { weight: 1.0 })),
            Offer::of_plugins("least-kv", || {
                scored_by(ScorerPlugin::KvCacheUtilizationScorer { weight: 1.0 })
            }),
            Offer::of_plugins("least-request", || {
                scored_by(ScorerPlugin::ActiveRequestScorer {
                    weight: 1.0,
                    idle_threshold: 0,
                    max_busy_score: 1.0,
                })
            }),
            Offer::of_plugins("join-idle-queue", || {
                scored_by(ScorerPlugin::ActiveRequestScorer {
                    weight: 1.0,
                    idle_threshold: 0,
                    max_busy_score: 0.0,
                })
            }),
            Offer::of_plugins("least-tokens", || scored_by(ScorerPlugin::TokenLoadScorer { weight: 1.0 })),
            Offer::of_plugins("epp-weighted", epp::Parameters::default),
            Offer::of_plugins("epp-precise", epp_precise::defaults),
            Offer::of_plugins("sticky-until-saturated", sticky_until_saturated::defaults),
            Offer::of_plugins("epp-weighted", epp::Parameters::default)
                .with("optimized-baseline-2025", OPTIMIZED_BASELINE_2025),
            Offer::of_plugins("epp-weighted", epp::Parameters::default)
                .with("session-affinity", "scorers = [{ type = \"session-affinity-scorer\", weight = 1.0 }]"),
            Offer::composed("predicted-latency", predicted_latency::plugins),
        ],
        frame: "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n{}\n",
    },
    Product {
        name: "nginx",
        offers: &[
            Offer::of("weighted-round-robin", "# round robin is what it does by itself"),
            Offer::of("random", "random;"),
            Offer::of("least-request", "least_conn;").with("least_conn", "ties = \"rotating\""),
            Offer::of("power-of-two", "random two least_conn;"),
            Offer::of("session-hash", "hash $http_x_session_id consistent;")
                .with("hash", "without_session = \"one-key\""),
        ],
        frame: "upstream vllm {\n    zone vllm 64k;  # one count for all workers\n    {}\n    # server 10.0.0.1:8000;\n}\n",
    },
    Product {
        name: "production-stack",
        offers: &[
            Offer::of("round-robin", "roundrobin"),
            Offer::of("session-hash", "session --session-key x-session-id"),
            Offer::of("prefix-trie", "prefixaware")
                .flags(&[("prefix_min_match_tokens", " --prefix-min-match-length {characters}")]),
            Offer::of("hit-minus-load", "loadaware"),
        ],
        frame: "vllm-router --routing-logic {}\n",
    },
    Product {
        name: "sglang",
        offers: &[
            Offer::of("random", "random"),
            Offer::of("round-robin", "round_robin"),
            Offer::of("expected-wait", "power_of_two").with("power_of_two", "choices = 2"),
            Offer::of("expected-wait", "least_load"),
            Offer::of("session-hash", "consistent_hashing"),
            Offer::of("session-sticky", "manual").with("manual", "ttl_s = 14400.0"),
            Offer::of("prefix-hash-bounded", "prefix_hash")
                .with("prefix_hash", "prefix_tokens = 256\nvirtual_nodes = 150\noverflow = \"least-loaded\"")
                .flags(&[
                    ("load_factor", " --prefix-hash-load-factor {}"),
                    ("prefix_tokens", " --prefix-token-count {}"),
                ]),
            Offer::of("cache-aware", "cache_aware").flags(&[
                ("balance_abs_threshold", " --balance-abs-threshold {}"),
                ("balance_rel_threshold", " --balance-rel-threshold {}"),
                ("cache_threshold", " --cache-threshold {}"),
                ("max_tree_size", " --max-tree-size {}"),
            ]),
        ],
        frame: "python -m sglang_router.launch_router --policy {}\n",
    },
];
