//! The status of a `Speaker` object from what is known. Pure, but for the time of a transition.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use lightship_crds::{CONDITION_READY, LostPeer, SpeakerStatus, VipMode};
use lightship_frames::Mac;

use super::uplink::Reading;
use crate::director::Health;
use crate::uplink::Uplink;
use lightship_core::path::Verdict;
use lightship_core::world::NodeName;

/// Condition type: whether the director holds every VIP as wanted.
const CONDITION_DIRECTOR: &str = "DirectorComplete";

/// Condition type: whether all directors hold the same table.
const CONDITION_AGREEMENT: &str = "DirectorsAgree";

/// Condition type: whether the network passes what this node's director sends and gets.
const CONDITION_PATHS: &str = "PathsTested";

/// Condition type: whether no two nodes have one MAC address.
const CONDITION_MACS: &str = "MACsUnique";

/// Condition type: whether packets of clients on further uplinks' LANs are let in by the main uplink. It
/// is there only where it is `False`.
const CONDITION_RETURN: &str = "ReturnPaths";

/// What the start of the speaker found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How this node forwards and why; none until it is decided.
    pub mode: Option<(VipMode, String)>,
    /// The uplink, once it is found.
    pub uplink: Option<Uplink>,
    /// The indices of the further uplinks.
    pub further: Vec<u32>,
    /// What the start waits for.
    pub trouble: Option<Trouble>,
}

/// Why a speaker does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In one word, CamelCase.
    pub reason: &'static str,
    /// In a sentence, with what to do.
    pub message: String,
}

impl Trouble {
    /// Builds one.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Trouble {
            reason,
            message: message.into(),
        }
    }
}

/// All that the status is made from.
pub(super) struct Seen<'a> {
    pub(super) facts: &'a Facts,
    pub(super) health: &'a Health,
    pub(super) verdict: &'a Verdict,
    /// The main uplink.
    pub(super) uplink: Option<&'a Reading>,
    /// The further ones.
    pub(super) further: &'a [Reading],
    /// The names of those in use.
    pub(super) used: &'a [&'a str],
    pub(super) vips: usize,
    /// How many directors agree with the own one, and of how many, if not all for a while.
    pub(super) apart: Option<(usize, usize)>,
    /// The dead nodes of which this node is a witness.
    pub(super) lost: &'a BTreeSet<NodeName>,
    /// MAC addresses that several nodes have.
    pub(super) clashes: &'a BTreeMap<Mac, BTreeSet<NodeName>>,
    pub(super) stopping: bool,
}

impl Seen<'_> {
    fn trouble(&self) -> Option<Trouble> {
        if self.stopping {
            let message = "the speaker was told to stop; its director goes on forwarding";
            return Some(Trouble::new("Stopped", message));
        }
        if let Some(trouble) = &self.facts.trouble {
            return Some(trouble.clone());
        }
        if self.facts.mode.is_none() {
            return Some(Trouble::new("Starting", "the speaker starts"));
        }
        if let Some(uplink) = self.facts.uplink.as_ref().filter(|_| !self.has_carrier()) {
            let message = format!(
                "{} has no carrier, is down or is gone; nothing can be announced there",
                uplink.name
            );
            return Some(Trouble::new("UplinkDown", message));
        }
        if self.uplink.is_some_and(|reading| reading.answers_for_all) {
            let message = "kube-proxy runs in ipvs mode without strictARP, so this node answers ARP \
                for every VIP, whoever owns it; set ipvs.strictARP: true in kube-proxy's \
                configuration and restart it";
            return Some(Trouble::new("StrictARPOff", message));
        }
        let error = self.health.error.as_ref()?;
        let message = format!("the director is not as it should be, it is tried on: {error}");
        Some(Trouble::new("DirectorFailing", message))
    }

    /// Whether the node drops what other nodes' directors send it of clients on a LAN that it has a
    /// further uplink on.
    pub(super) fn drops_from_further(&self) -> bool {
        !self.used.is_empty() && self.uplink.is_some_and(|main| main.strict_rp_filter)
    }

    fn has_carrier(&self) -> bool {
        self.uplink.is_some_and(|reading| reading.carrier)
    }
}

/// The status, with the times of transitions taken over from the one before.
pub(super) fn status(seen: &Seen, before: Option<&SpeakerStatus>) -> SpeakerStatus {
    let (ready, reason, message) = match seen.trouble() {
        Some(trouble) => ("False", trouble.reason, trouble.message),
        None => ("True", "Running", "it answers for VIPs".to_owned()),
    };
    let mut conditions = vec![condition(CONDITION_READY, ready, reason, &message, before)];
    if seen
        .facts
        .mode
        .as_ref()
        .is_some_and(|(mode, _)| *mode == VipMode::DirectRouting)
    {
        conditions.push(director(seen.health, before));
        conditions.push(agreement(seen.apart, before));
    }
    if seen.facts.mode.is_some() {
        conditions.push(paths(seen.verdict, before));
        conditions.push(macs(seen.clashes, before));
    }
    conditions.extend(returns(seen, before));
    let (mode, mode_reason) = match &seen.facts.mode {
        Some((VipMode::DirectRouting, _)) if seen.verdict.fault.is_some() => {
            let reason = format!("{}: {}", seen.verdict.reason(), seen.verdict);
            (Some(VipMode::Announce), cut(&reason, 1024))
        }
        Some((mode, reason)) => (Some(*mode), cut(reason, 1024)),
        None => (None, String::new()),
    };
    let uplinks = seen.uplink.into_iter().chain(seen.further);
    SpeakerStatus {
        mode,
        mode_reason,
        uplinks: uplinks.map(|r| r.uplink.clone()).collect(),
        vips: i32::try_from(seen.vips).unwrap_or(i32::MAX),
        lost_peers: lost_peers(seen, before),
        conditions,
    }
}

/// The dead nodes, those named before with the time from there. A speaker that stops withdraws
/// its word, since nobody would correct it later.
fn lost_peers(seen: &Seen, before: Option<&SpeakerStatus>) -> Vec<LostPeer> {
    let named = |node: &NodeName| {
        let mut named = before?.lost_peers.iter();
        Some(named.find(|peer| peer.node == **node)?.since.clone())
    };
    let lost = seen.lost.iter().filter(|_| !seen.stopping);
    lost.map(|node| LostPeer {
        node: node.to_string(),
        since: named(node).unwrap_or_else(now),
    })
    .collect()
}

/// Now, in whole seconds as `metav1.Time` has them; a finer time would never equal what is read back.
fn now() -> Time {
    Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default())
}

/// Whether the director holds every VIP as wanted.
fn director(health: &Health, before: Option<&SpeakerStatus>) -> Condition {
    /// A person reads the first few.
    const SHOWN: usize = 3;
    let failing = &health.failing;
    if failing.is_empty() {
        let message = "the director holds every VIP as wanted";
        return condition(CONDITION_DIRECTOR, "True", "Complete", message, before);
    }
    let some = failing.iter().take(SHOWN);
    let some: Vec<_> = some.map(|(vip, why)| format!("{vip}: {why}")).collect();
    let more = if failing.len() > SHOWN { "; …" } else { "" };
    let message = format!(
        "the kernel refuses {} VIPs, which is tried again: {}{more}",
        failing.len(),
        some.join("; ")
    );
    condition(CONDITION_DIRECTOR, "False", "VIPsRefused", &message, before)
}

/// Whether every MAC address that nodes tell of is one node's.
fn macs(clashes: &BTreeMap<Mac, BTreeSet<NodeName>>, before: Option<&SpeakerStatus>) -> Condition {
    if clashes.is_empty() {
        let message = "no two nodes that are heard have one MAC address";
        return condition(CONDITION_MACS, "True", "Unique", message, before);
    }
    let named = clashes.iter().map(|(mac, nodes)| {
        let nodes: Vec<&str> = nodes.iter().map(|node| &**node).collect();
        format!("{} have {mac}", nodes.join(" and "))
    });
    let named: Vec<String> = named.collect();
    let message = format!(
        "{}; switches send frames for it to one of them only. Give copied machines a MAC address \
         of their own; a director's is derived from its uplink's, and made anew after \
         lightship-speaker cleanup",
        named.join("; ")
    );
    condition(CONDITION_MACS, "False", "MACClash", &message, before)
}

/// Whether what directors send this node of clients on further LANs is let in.
fn returns(seen: &Seen, before: Option<&SpeakerStatus>) -> Option<Condition> {
    let main = seen.uplink.filter(|_| seen.drops_from_further())?;
    let interface = &main.uplink.interface;
    let message = format!(
        "rp_filter is strict (1) on {interface}, so this node drops what other nodes' directors send it \
         of clients on the LANs of {}; set net.ipv4.conf.all.rp_filter or that of {interface} to 2",
        seen.used.join(", ")
    );
    Some(condition(
        CONDITION_RETURN,
        "False",
        "StrictReversePath",
        &message,
        before,
    ))
}

/// Whether the network passes what directors send.
fn paths(verdict: &Verdict, before: Option<&SpeakerStatus>) -> Condition {
    let status = match verdict {
        _ if !verdict.fine() => "False",
        _ if verdict.known == 0 => "Unknown",
        _ => "True",
    };
    let message = verdict.to_string();
    condition(CONDITION_PATHS, status, verdict.reason(), &message, before)
}

/// Whether all directors hold the same table, as far as their digests tell.
fn agreement(apart: Option<(usize, usize)>, before: Option<&SpeakerStatus>) -> Condition {
    let Some((agreeing, all)) = apart else {
        let message = "all directors that are heard hold the same table";
        return condition(CONDITION_AGREEMENT, "True", "SameTable", message, before);
    };
    let message = format!(
        "only {agreeing} of {all} directors hold the table that this one holds; connections may \
         be reset when a VIP moves between two that differ. See the condition {CONDITION_DIRECTOR} \
         of all Speakers, and whether all speakers reach the API server and have one version"
    );
    condition(
        CONDITION_AGREEMENT,
        "False",
        "TablesDiffer",
        &message,
        before,
    )
}

/// A condition whose time is that of the one before, if that said the same.
fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    before: Option<&SpeakerStatus>,
) -> Condition {
    let previous = before.and_then(|before| {
        let mut conditions = before.conditions.iter();
        conditions.find(|c| c.type_ == kind && c.status == status)
    });
    Condition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: cut(message, 4096),
        last_transition_time: previous.map_or_else(now, |c| c.last_transition_time.clone()),
        observed_generation: None,
    }
}

/// At most so many bytes of a text, as the CRD's bounds want it.
fn cut(text: &str, limit: usize) -> String {
    let end = text.floor_char_boundary(limit);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
