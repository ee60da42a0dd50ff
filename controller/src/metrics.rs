//! The controller's metrics, and whether it is ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use lightship_ipam::{Family, Usage};
use lightship_kit::Admin;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

/// Upper bounds for how long a decision takes, in seconds.
const DECISIONS: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 2.0];

/// What a leader knows; none while another leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every kind of object has been listed.
    pub listed: bool,
    /// Services that want an address of ours and have what they ask for.
    pub served: u64,
    /// Those that have none, or not all.
    pub unserved: u64,
    /// Addresses by pool and family.
    pub pools: BTreeMap<(Arc<str>, Family), Usage>,
    /// Objects with a write under way or waiting.
    pub pending: u64,
}

/// A write's kind and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Write {
    /// `VirtualIP`, `Service` or `AddressPool`.
    pub kind: &'static str,
    /// `written`, `void`, `conflict`, `refused` or `failed`.
    pub outcome: &'static str,
}

/// What is counted as it happens, over all tenures of this process.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Answers of the API server to writes.
    pub writes: family::Family<Write, Counter>,
    /// How long decisions take.
    pub decisions: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            writes: family::Family::default(),
            decisions: Histogram::new(DECISIONS),
        }
    }
}

impl Metrics {
    /// What the monitoring port tells. Who stands by is ready: it can take over at any time. A
    /// leader is ready when it has seen everything.
    pub fn admin(&self, told: watch::Receiver<Option<Arc<Snapshot>>>) -> Admin {
        let mut registry = Registry::with_prefix("lightship_controller");
        registry.register(
            "writes",
            "Writes to the API server by kind and outcome",
            self.writes.clone(),
        );
        registry.register_with_unit(
            "decision_duration",
            "Time to decide what follows from one change",
            Unit::Seconds,
            self.decisions.clone(),
        );
        registry.register_collector(Box::new(Told(told.clone())));
        Admin {
            registry,
            live: Box::new(|| Ok(())),
            ready: Box::new(move || match told.borrow().as_deref() {
                Some(told) if !told.listed => {
                    Err("leads, and has not listed every kind of object yet".to_owned())
                }
                _ => Ok(()),
            }),
        }
    }
}

/// A metric's name, its help, and what of a pool's usage it tells.
type Count = (&'static str, &'static str, fn(&Usage) -> u128);

#[derive(Debug)]
struct Told(watch::Receiver<Option<Arc<Snapshot>>>);

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let told = self.0.borrow().clone();
        let mut gauge = |name: &str, help: &str, values: &[(Vec<(&str, String)>, u64)]| {
            let kind = ConstGauge::new(0u64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            if let [(labels, value)] = values
                && labels.is_empty()
            {
                return ConstGauge::new(*value).encode(family);
            }
            for (labels, value) in values {
                ConstGauge::new(*value).encode(family.encode_family(labels)?)?;
            }
            Ok::<_, std::fmt::Error>(())
        };
        let leader = u64::from(told.is_some());
        gauge(
            "leader",
            "1 while this replica acts, 0 while it stands by",
            &[(vec![], leader)],
        )?;
        let Some(told) = told.filter(|told| told.listed) else {
            return Ok(());
        };
        let services = [("true", told.served), ("false", told.unserved)];
        let services = services.map(|(has, n)| (vec![("has_address", has.to_owned())], n));
        gauge(
            "services",
            "Services that want an address from Lightship",
            &services,
        )?;
        gauge(
            "writes_pending",
            "Objects with a write under way or waiting",
            &[(vec![], told.pending)],
        )?;
        let counts: [Count; 4] = [
            ("pool_addresses", "Addresses that a pool can give", |u| {
                u.total
            }),
            (
                "pool_addresses_assigned",
                "Addresses of a pool in use",
                |u| u.assigned,
            ),
            (
                "pool_addresses_available",
                "Addresses left, resting ones included",
                |u| u.available,
            ),
            (
                "pool_addresses_resting",
                "Addresses that wait before they are used again",
                |u| u.quarantined,
            ),
        ];
        for (name, help, of) in counts {
            let values = told.pools.iter().map(|((pool, family), usage)| {
                let family = match family {
                    Family::V4 => "IPv4",
                    Family::V6 => "IPv6",
                };
                let labels = vec![("pool", pool.to_string()), ("family", family.to_owned())];
                (labels, u64::try_from(of(usage)).unwrap_or(u64::MAX))
            });
            gauge(name, help, &values.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics, told: Option<Snapshot>) -> (String, bool) {
        let (_sender, told) = watch::channel(told.map(Arc::new));
        let admin = metrics.admin(told);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &admin.registry).unwrap();
        (page, (admin.ready)().is_ok())
    }

    #[test]
    fn a_leader_tells_services_pools_and_writes() {
        let metrics = Metrics::default();
        let write = Write {
            kind: "Service",
            outcome: "conflict",
        };
        metrics.writes.get_or_create(&write).inc();
        metrics.decisions.observe(0.0002);
        let usage = Usage {
            total: u128::MAX,
            assigned: 2,
            available: 9,
            quarantined: 1,
        };
        let told = Snapshot {
            listed: true,
            served: 5,
            unserved: 1,
            pools: [(("lan".into(), Family::V6), usage)].into(),
            pending: 4,
        };
        let (page, ready) = page(&metrics, Some(told));
        assert!(ready);
        for line in [
            "lightship_controller_leader 1",
            "lightship_controller_services{has_address=\"true\"} 5",
            "lightship_controller_services{has_address=\"false\"} 1",
            "lightship_controller_pool_addresses{pool=\"lan\",family=\"IPv6\"} 18446744073709551615",
            "lightship_controller_pool_addresses_assigned{pool=\"lan\",family=\"IPv6\"} 2",
            "lightship_controller_pool_addresses_resting{pool=\"lan\",family=\"IPv6\"} 1",
            "lightship_controller_writes_total{kind=\"Service\",outcome=\"conflict\"} 1",
            "lightship_controller_writes_pending 4",
            "lightship_controller_decision_duration_seconds_bucket{le=\"0.0005\"} 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn who_stands_by_is_ready_and_a_leader_only_when_it_has_seen_everything() {
        let (standby, ready) = page(&Metrics::default(), None);
        assert!(ready && standby.contains("lightship_controller_leader 0"));
        let (fresh, ready) = page(&Metrics::default(), Some(Snapshot::default()));
        assert!(!ready && fresh.contains("lightship_controller_leader 1"));
        assert!(
            !fresh.contains("pool_addresses"),
            "a count of nothing would mislead"
        );
    }
}
