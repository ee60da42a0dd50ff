//! What a VirtualIP's status says, as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use lightship_crds::CONDITION_READY;
use serde_json::{Value, json};

use super::Identity;
use super::apply::Carried;
use lightship_core::core::{Move, OffLink, Ownership, Unowned, VipReport};
use lightship_core::world::{NodeName, ServiceRef};

/// Condition: whether the address is on the node that an annotation asks for.
const CONDITION_PLACED: &str = "Placed";

/// Condition: whether the address is on a network of the owner's uplink. It is there only where it is
/// `False`.
const CONDITION_ON_LINK: &str = "OnLink";

/// Condition: whether endpoints of its Services can be reached. It is there only where it is `False`.
const CONDITION_BACKENDS: &str = "Backends";

/// So many nodes are named in a message.
const NAMED: usize = 5;

/// So many backends are listed. Hundreds of nodes in each of a thousand objects, written anew whenever one of
/// them goes, would be a load for the API server; those that the list leaves out are counted all the same.
const LISTED: usize = 64;

/// The status of a VIP that this node owns. `last`: the one that was written last.
pub(super) fn owned(
    id: &Identity,
    report: &VipReport,
    all: &Ownership,
    last: Option<&Value>,
) -> Value {
    let (mode, mac) = if report.direct_routing {
        ("DirectRouting", &id.director_mac)
    } else {
        ("Announce", &id.uplink_mac)
    };
    let (interface, mac) = match &report.further {
        Some((interface, mac)) => (interface.to_string(), mac.to_string()),
        None => (id.interface.clone(), mac.clone()),
    };
    let serving = report.backends.values().filter(|w| **w > 0).count();
    let (ready, reason, message) = if let Some(trouble) = &report.trouble {
        let message = format!("no node can answer for it, {} neither: {trouble}", id.node);
        ("False", "OwnerNotEligible", message)
    } else if let Some(mac) = report.conflict {
        let message = if report.announced {
            format!("{mac} answers for it too, and is no node of this cluster that is heard")
        } else {
            format!(
                "in use by {mac}, no node of this cluster that is heard; asked again every 10 s"
            )
        };
        ("False", "AddressConflict", message)
    } else if !report.announced {
        let message = "the director is not ready yet".to_owned();
        ("False", "NotAnnounced", message)
    } else if serving == 0 && !report.stranded.is_empty() {
        let message =
            "its endpoints are on nodes of another LAN (see the condition Backends); connections \
                       are refused"
                .to_owned();
        ("False", "NoBackends", message)
    } else if serving == 0 {
        let message = "no node has a ready endpoint for it; connections are refused".to_owned();
        ("False", "NoBackends", message)
    } else if let Some(refused) = &report.refused {
        let how = if report.direct_routing {
            "its director does not hold all of it"
        } else {
            "by its own kube-proxy alone, as its director cannot hold it"
        };
        let message = format!("{} answers for it, {how}: {refused}", id.node);
        ("True", "DirectorRefused", message)
    } else {
        ("True", "Announced", format!("{} answers for it", id.node))
    };
    let mut conditions = vec![condition(CONDITION_READY, ready, reason, &message, last)];
    if let Some(p) = &report.placement {
        let placed = if p.placed { "True" } else { "False" };
        let entry = condition(CONDITION_PLACED, placed, p.reason, &p.message, last);
        conditions.push(entry);
    }
    if let Some(off_link) = report.off_link {
        let node = &id.node;
        let (reason, message) = match off_link {
            OffLink::Everywhere => (
                "RoutedAddress",
                format!(
                    "it is on no network of any node's uplinks; {node} announces it on {interface} all the \
                     same, for a router with a route to it on that LAN"
                ),
            ),
            OffLink::Here => (
                "OtherLan",
                format!(
                    "it is on no network of the uplink {interface} of {node}, and those nodes that have it \
                     on theirs cannot own it now"
                ),
            ),
        };
        conditions.push(condition(
            CONDITION_ON_LINK,
            "False",
            reason,
            &message,
            last,
        ));
    }
    if !report.stranded.is_empty() {
        let message = stranded(&report.stranded);
        let entry = condition(
            CONDITION_BACKENDS,
            "False",
            "EndpointsOffLink",
            &message,
            last,
        );
        conditions.push(entry);
    }
    let directors = format!("{}/{}", all.directors_agreeing, all.directors);
    let mut status = json!({
        "owner": id.node,
        "epoch": report.epoch,
        "mode": mode,
        "interface": interface,
        "mac": mac,
        "backends": backends(&report.backends),
        "backendsReady": format!("{serving}/{}", report.backends.len()),
        "directors": report.direct_routing.then_some(directors),
        "movedTo": report.moved_to,
        "conditions": conditions,
    });
    if let Some(moved) = &report.moved {
        status["lastMove"] = json!({
            "time": moved_at(id, moved, last),
            "from": moved.from,
            "to": id.node,
            "reason": moved.reason,
        });
    } else if let Some(moved) = last.and_then(|last| last.get("lastMove")) {
        status["lastMove"] = moved.clone();
    }
    status
}

/// The status of a VIP that nobody owns. What the last owner wrote of itself is taken out, but for
/// [`Carried::LastOwner`]: that is none of our knowledge, and carried over.
pub(super) fn unowned(report: &Unowned, last: Option<&Value>) -> Value {
    let ready = condition(
        CONDITION_READY,
        "False",
        "NoCandidate",
        &report.message,
        last,
    );
    let mut status = json!({
        "backends": backends(&report.backends),
        "backendsReady": format!("0/{}", report.backends.len()),
        "conditions": [ready],
    });
    for field in Carried::LastOwner.fields() {
        if let Some(value) = last.and_then(|last| last.get(field)) {
            status[field] = value.clone();
        }
    }
    status
}

/// Which Services have endpoints only where the VIP's LAN is not, and what to do.
fn stranded(all: &BTreeMap<ServiceRef, BTreeSet<NodeName>>) -> String {
    let services = all.iter().map(|(service, nodes)| {
        let named: Vec<&str> = nodes.iter().take(NAMED).map(|name| &**name).collect();
        let more = nodes.len().saturating_sub(NAMED);
        let more = (more > 0).then(|| format!(" and {more} more"));
        format!(
            "all endpoints of {service} are on {}{}",
            named.join(", "),
            more.unwrap_or_default()
        )
    });
    let services: Vec<String> = services.collect();
    format!(
        "{}, whose uplink has no address or route in a network of this address, so that no director can \
         reach them, and externalTrafficPolicy is Local: set it to Cluster, or run a Pod on a node that has the \
         address on-link, or give those nodes a link and an address on its network",
        services.join("; ")
    )
}

/// The list of backends by name. Of very many, those that take nothing new are listed before others.
fn backends(all: &BTreeMap<NodeName, u32>) -> Vec<Value> {
    let (idle, busy): (Vec<_>, Vec<_>) = all.iter().partition(|(_, weight)| **weight == 0);
    let listed: BTreeMap<_, _> = idle.into_iter().chain(busy).take(LISTED).collect();
    let entry = |(node, weight)| json!({ "node": node, "weight": weight });
    listed.into_iter().map(entry).collect()
}

/// A condition, with the transition time of before if its status is the same.
fn condition(kind: &str, status: &str, reason: &str, message: &str, last: Option<&Value>) -> Value {
    let before = last.and_then(|l| l["conditions"].as_array());
    let same = before
        .into_iter()
        .flatten()
        .find(|c| c["type"] == kind && c["status"] == status);
    let since = same.map_or_else(
        || json!(rfc3339(SystemTime::now(), 0)),
        |c| c["lastTransitionTime"].clone(),
    );
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    })
}

/// The wall-clock time of a move. It is computed once per move, since the clock may be set: by
/// how long ago it was, on the clock of now.
fn moved_at(id: &Identity, moved: &Move, last: Option<&Value>) -> Value {
    let known = last.filter(|l| l["epoch"] == moved.epoch && l["lastMove"]["to"] == *id.node);
    known.map_or_else(
        || {
            let ago = id.origin.elapsed().saturating_sub(moved.at);
            let now = SystemTime::now();
            json!(rfc3339(now.checked_sub(ago).unwrap_or(now), 6))
        },
        |l| l["lastMove"]["time"].clone(),
    )
}

/// A time in RFC 3339 with so many decimals, as metav1.Time (0) and MicroTime (6) want it.
fn rfc3339(time: SystemTime, decimals: u8) -> String {
    use k8s_openapi::jiff::{Timestamp, fmt::temporal::DateTimePrinter};
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let printer = DateTimePrinter::new().precision(Some(decimals));
    printer.timestamp_to_string(&time)
}

#[cfg(test)]
mod tests;
