//! The director's links on further uplinks: clients' packets come in by them, and only what the director
//! itself answers clients leaves by them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lightship_frames::Mac;
use lightship_netio::{Link, Macvlan, Netns, Rtnl};

use super::Error;
use super::links::{MACVLAN, NETNS, follow};

/// The further uplinks in use: by name, the index and the director's MAC there.
pub(super) type Wanted = BTreeMap<Arc<str>, (u32, Mac)>;

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Further {
    /// The links, by their uplinks' indices.
    pub(super) links: BTreeMap<u32, Inner>,
    /// The uplinks that were asked for; with the kernel's reason where it refuses a link there.
    pub(super) uplinks: BTreeMap<Arc<str>, Option<String>>,
}

/// One of the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inner {
    pub(super) index: u32,
    pub(super) name: String,
}

/// The name of the link on the uplink of this index: in hexadecimal, so that it fits `IFNAMSIZ` whatever
/// the index is.
fn name(uplink: u32) -> String {
    format!("{MACVLAN}-{uplink:x}")
}

/// Whether it is the name of such a link.
pub(crate) fn is_name(link: &str) -> bool {
    let index = link.strip_prefix(MACVLAN).and_then(|l| l.strip_prefix('-'));
    index.is_some_and(|index| u32::from_str_radix(index, 16).is_ok())
}

/// The MACs of the links that are there, by their uplinks' indices.
pub(crate) async fn macs() -> Result<BTreeMap<u32, Mac>, Error> {
    if !Netns::exists(NETNS) {
        return Ok(BTreeMap::new());
    }
    let links = Rtnl::open_in(&Netns::open(NETNS)?)?.links().await?;
    let ours = links.into_iter().filter(|link| is_name(&link.name));
    let macs = ours.filter_map(|link| Some((link.link?, link.mac?)));
    Ok(macs.collect())
}

/// Makes the links these, and says in `made` what was done. That the kernel refuses one does not keep
/// the others from being made.
pub(super) async fn links(
    host: &Rtnl,
    inside: &Rtnl,
    netns: &Netns,
    wanted: &Wanted,
    made: &mut Vec<String>,
) -> Result<Further, Error> {
    let present = inside.links().await?;
    let mut present: BTreeMap<String, Link> = present
        .into_iter()
        .filter(|link| is_name(&link.name))
        .map(|link| (link.name.clone(), link))
        .collect();
    let mut further = Further::default();
    let names: BTreeSet<String> = wanted.values().map(|(index, _)| name(*index)).collect();
    for (old, link) in &present {
        if !names.contains(old) && inside.delete_link(link.index).await? {
            made.push(format!("no link {old}"));
        }
    }
    for (uplink, (index, mac)) in wanted {
        let spec = Macvlan {
            name: name(*index),
            mac: *mac,
            parent: *index,
        };
        let found = present.remove(&spec.name);
        match link(host, inside, netns, &spec, found, made).await {
            Ok(Some(inner)) => {
                further.links.insert(*index, inner);
                further.uplinks.insert(uplink.clone(), None);
            }
            // It has just gone, which is news that the core is about to hear.
            Ok(None) => {}
            Err(error) => {
                let refused = error.to_string();
                further.uplinks.insert(uplink.clone(), Some(refused));
            }
        }
    }
    Ok(further)
}

/// Makes one of the links; none if its uplink is not there. `found`: what has its name.
async fn link(
    host: &Rtnl,
    inside: &Rtnl,
    netns: &Netns,
    spec: &Macvlan,
    found: Option<Link>,
    made: &mut Vec<String>,
) -> Result<Option<Inner>, Error> {
    let Some(parent) = host.link(spec.parent).await? else {
        return Ok(None);
    };
    let right = |link: &Link| link.mac == Some(spec.mac) && link.link == Some(spec.parent);
    let link = match found {
        Some(link) if right(&link) => link,
        other => {
            if let Some(other) = other {
                inside.delete_link(other.index).await?;
            }
            let made_it = host.create_macvlan(spec, Some(netns)).await;
            made_it.map_err(Error::of_macvlan)?;
            made.push(format!("link {} on {}", spec.name, parent.name));
            inside.require_link(&spec.name).await?
        }
    };
    follow(inside, &link, parent.mtu, made).await?;
    Ok(Some(Inner {
        index: link.index,
        name: link.name,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_known_by_its_name() {
        assert_eq!(name(11), "ls-dir-b");
        assert_eq!(name(u32::MAX).len(), 15);
        for (link, ours) in [
            ("ls-dir-b", true),
            ("ls-dir-ffffffff", true),
            ("ls-dir", false),
            ("ls-dir-", false),
            ("ls-dir-eth", false),
            ("ls-self", false),
        ] {
            assert_eq!(is_name(link), ours, "{link}");
        }
    }
}
