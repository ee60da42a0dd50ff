//! `lightship-speaker cleanup`: takes everything that a speaker made off this node, and
//! nothing else.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use lightship_netio::{Family, Netns, PROTOCOL, RouteKind, Rtnl, TABLE_LOCAL, run_in};

use crate::director::{LINKS, NETNS, VETH_HOST, is_further};
use crate::{guard, lock};

/// Removes all of it and tells each thing by `said`. What is not there is no error, so it may
/// be run twice.
///
/// # Errors
/// When a speaker runs here, or something cannot be removed or is not ours; what comes after
/// that is left too.
pub async fn run(state_file: &Path, mut said: impl FnMut(String)) -> anyhow::Result<()> {
    let held = lock::take(state_file)?;
    let host = Rtnl::open()?;
    if let Ok(netns) = Netns::open(NETNS) {
        namespace(&host, &netns, &mut said).await?;
    }
    // Its other end may have been moved away or lost by hand.
    if let Some(link) = host.link_by_name(VETH_HOST).await?
        && link.kind.as_deref() == Some("veth")
        && host.delete_link(link.index).await?
    {
        said(format!("link {VETH_HOST}"));
    }
    for what in guard::remove(&host).await? {
        said(what);
    }
    remove_file(state_file, &mut said)?;
    let lock_file = state_file.with_extension("lock");
    remove_file(&lock_file, &mut said)?;
    drop(held);
    // Only if it is empty: other files there are not ours.
    if let Some(folder) = state_file.parent()
        && fs::remove_dir(folder).is_ok()
    {
        said(format!("folder {}", folder.display()));
    }
    Ok(())
}

/// In the order in which a VIP ceases to be directed: its packets are let in no more, then the
/// services go, then what they were sent by.
async fn namespace(
    host: &Rtnl,
    netns: &Netns,
    said: &mut impl FnMut(String),
) -> anyhow::Result<()> {
    let inside = Rtnl::open_in(netns)?;
    let links = inside.links().await?;
    let foreign = links
        .iter()
        .find(|link| link.name != "lo" && !is_ours(&link.name));
    if let Some(link) = foreign {
        bail!(
            "the namespace {NETNS} holds link {}, which is not ours; move it away, then run \
             this again",
            link.name
        );
    }
    for family in [Family::V4, Family::V6] {
        for route in inside.list_routes(TABLE_LOCAL, family).await? {
            let ours = route.protocol == PROTOCOL && route.kind == RouteKind::Local;
            if ours && inside.delete_route(&route).await? {
                said(format!("route {route} in namespace {NETNS}"));
            }
        }
    }
    let services = run_in(netns, flush)??;
    if services > 0 {
        said(format!("{services} IPVS services in namespace {NETNS}"));
    }
    // Both ends of the veth pair go at once, and the other one may be seen a moment longer.
    for link in links.iter().filter(|link| is_ours(&link.name)) {
        if inside.delete_link(link.index).await? {
            said(format!("link {}", link.name));
        }
    }
    // The other end of the pair goes at once only if it is asked to.
    if let Some(link) = host.link_by_name(VETH_HOST).await? {
        host.delete_link(link.index).await?;
    }
    if Netns::delete(NETNS)? {
        said(format!("namespace {NETNS}"));
    }
    Ok(())
}

fn is_ours(link: &str) -> bool {
    LINKS.contains(&link) || is_further(link)
}

/// Within the namespace. Returns how many services there were.
fn flush() -> anyhow::Result<usize> {
    let mut ipvs = match lightship_ipvs::Client::open() {
        Ok(ipvs) => ipvs,
        Err(lightship_ipvs::Error::NotSupported) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let services = ipvs.dump_services()?.len();
    ipvs.flush()?;
    Ok(services)
}

fn remove_file(path: &Path, said: &mut impl FnMut(String)) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => said(format!("file {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
    }
    Ok(())
}
