//! The speaker's metrics, and whether it is ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lightship_kit::Admin;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use crate::drift::Mended;
use lightship_core::core::Snapshot;

/// A core that has said nothing for so long is stuck: it counts itself at least once a second.
const STUCK: Duration = Duration::from_secs(20);

/// How late the core's timer may be, in seconds: a heartbeat interval is 0.1.
const LATENESS: [f64; 8] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.4, 1.0];

/// The state of one kind's watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// As the API server calls it.
    pub kind: String,
}

/// What the parts of the speaker count themselves.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// 1 for each kind whose watch works.
    pub watches: Family<Kind, Gauge>,
    /// How late the core's timer fired.
    pub lateness: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            watches: Family::default(),
            lateness: Histogram::new(LATENESS),
        }
    }
}

impl Metrics {
    /// What the monitoring port tells. `snapshot` is none until the core runs; the speaker is live
    /// as long as the core goes on to count.
    pub fn admin(
        &self,
        snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
        mended: watch::Receiver<Mended>,
    ) -> Admin {
        let mut registry = Registry::with_prefix("lightship_speaker");
        registry.register(
            "api_watch_up",
            "1 while the watch of this kind works, 0 from its failure to its return",
            self.watches.clone(),
        );
        registry.register_with_unit(
            "core_lateness",
            "How late the thread that beats and answers woke",
            Unit::Seconds,
            self.lateness.clone(),
        );
        let told = Told {
            core: snapshot.clone(),
            mended,
        };
        registry.register_collector(Box::new(told));
        let ready = snapshot.clone();
        Admin {
            registry,
            live: alive(snapshot),
            ready: Box::new(move || ready_now(ready.borrow().as_deref())),
        }
    }
}

/// Whether the core still counts. Before it runs there is nothing that could be stuck.
fn alive(
    mut snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
) -> Box<dyn Fn() -> Result<(), String> + Send + Sync> {
    let origin = Instant::now();
    let last = Arc::new(AtomicU64::new(0));
    let heard = last.clone();
    let running = snapshot.clone();
    tokio::spawn(async move {
        while snapshot.changed().await.is_ok() {
            heard.store(origin.elapsed().as_secs(), Ordering::Relaxed);
        }
    });
    Box::new(move || {
        let since = origin.elapsed().as_secs() - last.load(Ordering::Relaxed);
        if running.borrow().is_some() && since > STUCK.as_secs() {
            return Err(format!("the core thread has been silent for {since} s"));
        }
        Ok(())
    })
}

/// Ready is who could own VIPs: it knows the cluster, has heard its peers, and nothing is wrong
/// with its uplink and director.
fn ready_now(snapshot: Option<&Snapshot>) -> Result<(), String> {
    let Some(snapshot) = snapshot else {
        return Err("waiting for the API server, the own Node or the heartbeat Secret".into());
    };
    if !snapshot.settled {
        return Err("listening for the other speakers".into());
    }
    snapshot.trouble.clone().map_or(Ok(()), Err)
}

/// The core's counts as metrics.
#[derive(Debug)]
struct Told {
    core: watch::Receiver<Option<Arc<Snapshot>>>,
    mended: watch::Receiver<Mended>,
}

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(told) = self.core.borrow().clone() else {
            return Ok(());
        };
        let mut page = Page(&mut encoder);
        let said = told.said;
        page.family(
            "heartbeats_refused",
            "Heartbeat datagrams refused",
            "reason",
            true,
            &told.refused,
        )?;
        page.family(
            "peers",
            "Other nodes by what is known of them",
            "state",
            false,
            &told.peers,
        )?;
        page.family(
            "vips_taken",
            "VIPs this node took",
            "reason",
            true,
            &told.taken,
        )?;
        page.family(
            "vips_released",
            "VIPs this node released",
            "reason",
            true,
            &told.released,
        )?;
        page.gauge("vips", "VIPs that exist in the cluster", told.vips)?;
        page.gauge("vips_owned", "VIPs this node owns", told.owned)?;
        page.gauge(
            "vips_announced",
            "VIPs this node announces and answers for",
            told.announced,
        )?;
        page.gauge(
            "vips_conflicting",
            "VIPs of this node that another machine uses too",
            told.conflicting,
        )?;
        page.counter(
            "conflicts",
            "Times that another machine was found to use a VIP of this node",
            said.conflicts,
        )?;
        page.counter(
            "announcements",
            "Frames that announce VIPs, each form counted",
            said.announcements,
        )?;
        page.counter(
            "probes",
            "Frames that ask whether a new VIP is in use",
            said.probes,
        )?;
        page.counter("arp_answers", "Answers to ARP requests", said.arp_answers)?;
        page.counter(
            "ndp_answers",
            "Answers to neighbour solicitations",
            said.ndp_answers,
        )?;
        page.counter(
            "frames_unsent",
            "Frames that the uplink's socket refused",
            said.unsent,
        )?;
        page.gauge(
            "director",
            "1 if this node directs traffic, 0 in mode Announce",
            told.has_director.into(),
        )?;
        page.gauge(
            "director_healthy",
            "1 while the director holds what it should",
            told.director_healthy.into(),
        )?;
        page.gauge(
            "director_vips_failing",
            "VIPs that the kernel does not hold as wanted",
            told.director_failing,
        )?;
        page.counter(
            "director_repairs",
            "Times that the director was put back after somebody else changed it",
            self.mended.borrow().director,
        )?;
        page.counter(
            "guard_repairs",
            "Times that the loop guard was put back after somebody else changed it",
            self.mended.borrow().guard,
        )?;
        page.gauge(
            "mac_clashes",
            "MAC addresses that more than one live node says is its own",
            told.mac_clashes,
        )?;
        page.gauge("directors", "Live nodes with a director", told.directors)?;
        page.gauge(
            "directors_agreeing",
            "Those of them with the same table as this node",
            told.directors_agreeing,
        )
    }
}

struct Page<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Page<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(
            self.0
                .encode_descriptor(name, help, None, metric.metric_type())?,
        )
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        let metric = ConstGauge::new(value);
        metric.encode(
            self.0
                .encode_descriptor(name, help, None, metric.metric_type())?,
        )
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        counts: bool,
        values: &std::collections::BTreeMap<&'static str, u64>,
    ) -> std::fmt::Result {
        let kind = if counts {
            ConstCounter::new(0u64).metric_type()
        } else {
            ConstGauge::new(0u64).metric_type()
        };
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, count) in values {
            let labels = [(label, *value)];
            let one = family.encode_family(&labels)?;
            if counts {
                ConstCounter::new(*count).encode(one)?;
            } else {
                ConstGauge::new(*count).encode(one)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics, snapshot: Option<Snapshot>) -> String {
        let (_sender, told) = watch::channel(snapshot.map(Arc::new));
        let mut page = String::new();
        let mended = Mended {
            director: 1,
            ..Mended::default()
        };
        let (_drift, mended) = watch::channel(mended);
        let admin = metrics.admin(told, mended);
        prometheus_client::encoding::text::encode(&mut page, &admin.registry).unwrap();
        page
    }

    #[tokio::test]
    async fn counts_are_told_with_their_labels() {
        let metrics = Metrics::default();
        metrics.lateness.observe(0.002);
        let watch = Kind {
            kind: "Service".into(),
        };
        metrics.watches.get_or_create(&watch).set(1);
        let snapshot = Snapshot {
            refused: [("replay", 7)].into(),
            peers: [("alive", 2), ("dead", 0)].into(),
            owned: 3,
            taken: [("OwnerDied", 4)].into(),
            ..Snapshot::default()
        };
        let page = page(&metrics, Some(snapshot));
        for line in [
            "lightship_speaker_heartbeats_refused_total{reason=\"replay\"} 7",
            "lightship_speaker_peers{state=\"dead\"} 0",
            "lightship_speaker_vips_owned 3",
            "lightship_speaker_vips_taken_total{reason=\"OwnerDied\"} 4",
            "lightship_speaker_director_repairs_total 1",
            "lightship_speaker_api_watch_up{kind=\"Service\"} 1",
            "lightship_speaker_core_lateness_seconds_bucket{le=\"0.005\"} 1",
            "# TYPE lightship_speaker_peers gauge",
            "# TYPE lightship_speaker_vips_taken counter",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }

    #[tokio::test]
    async fn before_the_core_runs_there_is_a_page_without_its_counts() {
        let page = page(&Metrics::default(), None);
        assert!(!page.contains("vips_owned") && page.ends_with("# EOF\n"));
    }

    #[test]
    fn ready_is_who_could_own_vips() {
        let fine = Snapshot {
            settled: true,
            ..Snapshot::default()
        };
        assert_eq!(ready_now(Some(&fine)), Ok(()));
        assert!(ready_now(None).unwrap_err().contains("API server"));
        assert!(
            ready_now(Some(&Snapshot::default()))
                .unwrap_err()
                .contains("other speakers")
        );
        let trouble = Some("eth0 has no carrier".to_owned());
        let broken = Snapshot { trouble, ..fine };
        assert!(ready_now(Some(&broken)).unwrap_err().contains("carrier"));
    }
}
