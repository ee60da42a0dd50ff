//! An uplink that goes, and comes back as another interface of the same name.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lightship_e2e::scene::{self, Wish};
use lightship_e2e::{probe, timeline, uplink, vip};
use lightship_lab::Lab;

use crate::common::{Served, figure};
use crate::modes::one_answers;

const LIMIT: Duration = Duration::from_secs(20);

/// Others take the VIPs of both families; when the uplink is there again, the same speaker answers on it: its
/// sockets and its multicast groups are upon the new interface.
pub(crate) fn used_again(lab: &mut Lab) -> Result<()> {
    let wish = Wish {
        dual_stack: true,
        ..Wish::local("remade")
    };
    Served::during(lab, &wish, |lab, vips| {
        let node = vip::owner(lab, vips[0])?;
        let at = |lab: &Lab, here: bool| -> Result<()> {
            for vip in vips {
                vip::wait(lab, *vip, "is where it can be", LIMIT, |vip| {
                    let owner = vip.owner.as_ref();
                    vip.ready && owner.is_some_and(|owner| (*owner == node) == here)
                })?;
            }
            Ok(())
        };
        let index = |lab: &Lab| lab.shell(&node, "cat /sys/class/net/eth0/ifindex");
        let before = index(lab)?;
        let begun = probe::now_ns();
        let removed = uplink::remove(lab, &node)?;
        let left = at(lab, false);
        removed.put_back(lab)?;
        let start = std::time::Instant::now();
        left?;
        ensure!(index(lab)? != before, "it is the same interface");
        for vip in vips {
            vip::move_to(lab, *vip, &node)?;
        }
        at(lab, true)?;
        figure("its VIPs are back after", start.elapsed());
        for vip in vips {
            one_answers(lab, *vip)?;
            let groups = lab.shell(&node, "ip -6 maddr show dev eth0")?;
            let group = format!("ff02::1:ff00:{}", last(*vip)?);
            ensure!(vip.is_ipv4() || groups.contains(&group), "{groups}");
        }
        let said = timeline::speaker(lab, &node)?;
        let mut said = said.iter().filter(|line| line.at_ns > begun);
        ensure!(
            !said.any(|line| line.text.contains("speaker starts")),
            "{node}'s speaker was started anew"
        );
        scene::heal_and_settle(lab, vips[0])
    })
}

/// The last group of an IPv6 address of the lab's pool, as it is printed.
fn last(address: std::net::IpAddr) -> Result<String> {
    let text = address.to_string();
    let group = text.rsplit([':', '.']).next();
    Ok(group.context("no groups")?.to_owned())
}
