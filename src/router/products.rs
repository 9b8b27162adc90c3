//! Products that operators choose between: what each offers, and how the choice is written in its own configuration.
//!
//! Knows flags, YAML and stanzas as the products' documents have them (the catalogue of `docs/policies.md` names versions). Does
//! not know which policy is best.

/// A gateway one can install.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// As `compare --product` takes it.
    pub name: &'static str,
    /// The policies it offers, by their names here, each with what its configuration says.
    pub offers: &'static [(&'static str, &'static str)],
    /// How a configuration is written around that.
    pub frame: &'static str,
}

/// All products, in order of name.
pub const PRODUCTS: &[Product] = &[
    Product {
        name: "aibrix",
        offers: &[
            ("random", "random"),
            ("least-request", "least-request"),
            ("drain-time", "load-balance"),
            ("least-kv", "least-kv-cache"),
            ("power-of-two", "power-of-two"),
            ("latency-average", "least-latency"),
            ("session-sticky", "session-affinity"),
            ("prefix-sigma", "prefix-cache"),
            ("preble-e2", "prefix-cache-preble"),
        ],
        frame: "# AIBrix gateway: for all requests, or for one by the header `routing-strategy`\nROUTING_ALGORITHM={}\n",
    },
    Product {
        name: "dynamo",
        offers: &[
            ("round-robin", "round-robin"),
            ("random", "random"),
            ("least-request", "least-loaded"),
            ("power-of-two", "power-of-two"),
            ("dynamo-kv", "kv"),
        ],
        frame: "python -m dynamo.frontend --router-mode {}\n",
    },
    Product {
        name: "envoy",
        offers: &[
            ("random", "RANDOM"),
            ("weighted-round-robin", "ROUND_ROBIN"),
            ("power-of-two", "LEAST_REQUEST\n    least_request_lb_config: { choice_count: 2 }"),
            (
                "session-hash",
                "RING_HASH\n    # and on the route: hash_policy: [{ header: { header_name: x-session-id } }]",
            ),
        ],
        frame: "clusters:\n  - name: vllm\n    lb_policy: {}\n",
    },
    Product {
        name: "haproxy",
        offers: &[
            ("weighted-round-robin", "balance roundrobin"),
            ("least-request", "balance leastconn"),
            ("power-of-two", "balance random(2)"),
            ("session-hash", "balance hdr(x-session-id)\n    hash-type consistent"),
        ],
        frame: "backend vllm\n    {}\n    # server replica-0 10.0.0.1:8000 check\n",
    },
    Product {
        name: "llm-d",
        offers: &[
            (
                "random",
                "plugins:\n- type: random-picker\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: random-picker",
            ),
            (
                "least-queue",
                "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n    weight: 1",
            ),
            (
                "least-kv",
                "plugins:\n- type: kv-cache-utilization-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: kv-cache-utilization-scorer\n    weight: 1",
            ),
            (
                "least-request",
                "plugins:\n- type: active-request-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: active-request-scorer\n    weight: 1",
            ),
            (
                "join-idle-queue",
                "plugins:\n- type: active-request-scorer\n  parameters:\n    maxBusyScore: 0\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: active-request-scorer\n    weight: 1",
            ),
            (
                "least-tokens",
                "plugins:\n- type: token-load-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: token-load-scorer\n    weight: 1",
            ),
            (
                "epp-weighted",
                "plugins:\n- type: queue-scorer\n- type: kv-cache-utilization-scorer\n- type: prefix-cache-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n    weight: 2\n  - pluginRef: kv-cache-utilization-scorer\n    weight: 2\n  - pluginRef: prefix-cache-scorer\n    weight: 3",
            ),
            (
                "epp-precise",
                "plugins:\n- type: precise-prefix-cache-producer\n- type: prefix-cache-scorer\n- type: kv-cache-utilization-scorer\n- type: queue-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: prefix-cache-scorer\n    weight: 2\n  - pluginRef: kv-cache-utilization-scorer\n    weight: 1\n  - pluginRef: queue-scorer\n    weight: 1",
            ),
            (
                "sticky-until-saturated",
                "plugins:\n- type: prefix-cache-affinity-filter\n- type: token-load-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: prefix-cache-affinity-filter\n  - pluginRef: token-load-scorer\n    weight: 1",
            ),
            (
                "predicted-latency",
                "plugins:\n- type: predicted-latency-producer\n- type: latency-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: latency-scorer\n    weight: 1",
            ),
        ],
        frame: "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n{}\n",
    },
    Product {
        name: "nginx",
        offers: &[
            ("weighted-round-robin", "# round robin is what it does by itself"),
            ("random", "random;"),
            ("least-request", "least_conn;"),
            ("power-of-two", "random two least_conn;"),
            ("session-hash", "hash $http_x_session_id consistent;"),
        ],
        frame: "upstream vllm {\n    zone vllm 64k;  # one count for all workers\n    {}\n    # server 10.0.0.1:8000;\n}\n",
    },
    Product {
        name: "production-stack",
        offers: &[
            ("round-robin", "roundrobin"),
            ("session-hash", "session --session-key x-session-id"),
            ("prefix-trie", "prefixaware"),
            ("hit-minus-load", "loadaware"),
        ],
        frame: "vllm-router --routing-logic {}\n",
    },
    Product {
        name: "sglang",
        offers: &[
            ("random", "random"),
            ("round-robin", "round_robin"),
            ("power-of-two", "power_of_two"),
            ("expected-wait", "least_load"),
            ("session-hash", "consistent_hashing"),
            ("session-sticky", "manual"),
            ("prefix-hash-bounded", "prefix_hash"),
            ("cache-aware", "cache_aware"),
        ],
        frame: "python -m sglang_router.launch_router --policy {}\n",
    },
];

/// The product of this name.
pub fn find(name: &str) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.name == name)
}

impl Product {
    /// The policies it offers.
    pub fn policies(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.offers.iter().map(|(policy, _)| *policy)
    }

    /// Its configuration for a policy that it offers, with its own defaults.
    pub fn configuration(&self, policy: &str) -> Option<String> {
        let (_, says) = self.offers.iter().find(|(offered, _)| *offered == policy)?;
        // Not `format!`: stanzas have braces of their own, and the place is the last pair without anything in it.
        let place = self.frame.rfind("{}")?;
        Some([&self.frame[..place], says, &self.frame[place + 2..]].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::policies;

    #[test]
    fn products_offer_policies_that_there_are() {
        for product in PRODUCTS {
            for policy in product.policies() {
                assert!(policies::find(policy).is_ok(), "{}: {policy}", product.name);
                let configuration = product.configuration(policy).unwrap();
                assert!(!configuration.contains("{}") && configuration.ends_with('\n'), "{configuration}");
            }
        }
        assert!(PRODUCTS.is_sorted_by_key(|product| product.name));
    }

    #[test]
    fn a_choice_is_written_as_the_product_reads_it() {
        let of = |product: &str, policy: &str| find(product).unwrap().configuration(policy);
        assert_eq!(
            of("production-stack", "prefix-trie").unwrap(),
            "vllm-router --routing-logic prefixaware\n"
        );
        assert!(of("nginx", "power-of-two").unwrap().contains("random two least_conn;"));
        assert!(of("llm-d", "sticky-until-saturated").unwrap().starts_with("apiVersion:"));
        assert_eq!(of("nginx", "dynamo-kv"), None);
    }
}
