//! A node that people want to do less: it keeps its connections and gets no new ones.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use lightship_e2e::probe::{self, Flows, Probe};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::vip;
use lightship_lab::Lab;

use crate::common::{Served, moved_from};

const FLOWS: usize = 100;
const SOON: Duration = Duration::from_secs(20);

/// The owner is drained: its addresses move, and what it serves itself goes on.
pub(crate) fn keeps(lab: &mut Lab) -> Result<()> {
    let annotate = |lab: &Lab, owner: &str, less| {
        let drain = if less {
            "lightship.dev/drain=true"
        } else {
            "lightship.dev/drain-"
        };
        lab.kubectl(&["annotate", "node", owner, drain])
    };
    keeps_while(lab, "drain", annotate)
}

/// The same of a cordon, where speakers have `--cordon=move`.
#[allow(
    dead_code,
    reason = "only the speakers of beside_ipvs.rs have the flag"
)]
pub(crate) fn cordon_keeps(lab: &mut Lab) -> Result<()> {
    let cordon = |lab: &Lab, owner: &str, less| {
        lab.kubectl(&[if less { "cordon" } else { "uncordon" }, owner])
    };
    keeps_while(lab, "cordon", cordon)
}

/// `ask` has a node do less, and no more.
fn keeps_while(
    lab: &mut Lab,
    name: &str,
    ask: impl Fn(&Lab, &str, bool) -> Result<String>,
) -> Result<()> {
    Served::during(lab, &Wish::local(name).fresh(), |lab, vips| {
        let address = vips[0];
        let owner = vip::owner(lab, address)?;
        let mut flows = Probe::flows(lab, address, FLOWS)?;
        ask(lab, &owner, true)?;
        let seen = (|| {
            moved_from(lab, address, &owner)?;
            let nodes = lab.node_names().len();
            vip::wait(lab, address, "has one node less", SOON, |vip| {
                vip.serving() == nodes - 1
            })?;
            // The directors follow within milliseconds; the status was written meanwhile.
            thread::sleep(Duration::from_millis(500));
            let seen = probe::stream_for(lab, address, 10, Duration::from_secs(2), false)?;
            anyhow::Ok((seen, flows.end::<Flows>()?))
        })();
        ask(lab, &owner, false)?;
        let (seen, flows) = seen?;
        eprintln!(
            "    {owner} served {:?} of {FLOWS} and kept {:?}",
            flows.nodes.get(&owner),
            flows.kept_nodes.get(&owner)
        );
        ensure!(seen.failures == 0, "{seen:?}");
        ensure!(
            !seen.nodes.contains_key(&owner),
            "{owner} got new connections: {seen:?}"
        );
        ensure!(
            flows.nodes.get(&owner).is_some_and(|count| *count > 0),
            "{owner} had none: {flows:?}"
        );
        ensure!(flows.kept == FLOWS, "connections were lost: {flows:?}");
        ensure!(flows.changed_node == 0, "{flows:?}");
        scene::wait_served(lab, address, lab.node_names().len())
    })
}
