//! Policy rules: which routing table a packet is looked up in.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::{Family, PROTOCOL, Rtnl, unless_exists, unless_missing};
use crate::Result;

/// The rule `from all iif IIF lookup TABLE pref PRIORITY`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The family.
    pub family: Family,
    /// Lower ones are asked first.
    pub priority: u32,
    /// Only packets that came in by this interface; all if none.
    pub iif: Option<String>,
    /// The table to look in.
    pub table: u32,
    /// Who made it; [`PROTOCOL`] if this crate did.
    pub protocol: u8,
}

impl Rule {
    /// A rule of ours: packets that come in by `iif` are looked up in `table`.
    pub fn for_iif(family: Family, iif: &str, table: u32, priority: u32) -> Rule {
        Rule {
            family,
            priority,
            iif: Some(iif.to_owned()),
            table,
            protocol: PROTOCOL,
        }
    }
}

impl Rtnl {
    /// The rules of a family that [`Rule`] can express; those with other
    /// conditions (source, mark, port) or actions are left out.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn rules(&self, family: Family) -> Result<Vec<Rule>> {
        let mut message = RuleMessage::default();
        message.header.family = family.to_netlink();
        let found = self
            .dump(RouteNetlinkMessage::GetRule(message), "list rules")
            .await?;
        Ok(found
            .into_iter()
            .filter_map(read)
            // A kernel without IPv6 answers for all the families that it has.
            .filter(|rule| rule.family == family)
            .collect())
    }

    /// Adds a rule. Returns `false` if it is there already.
    ///
    /// # Errors
    /// The kernel refuses, or has no policy rules ([`crate::Error::is_not_supported`]).
    pub async fn add_rule(&self, rule: &Rule) -> Result<bool> {
        unless_exists(
            self.change(
                RouteNetlinkMessage::NewRule(message(rule)),
                NLM_F_CREATE | NLM_F_EXCL,
                || format!("add rule {}", text(rule)),
            )
            .await,
        )
    }

    /// Deletes a rule. Returns whether it was there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn delete_rule(&self, rule: &Rule) -> Result<bool> {
        unless_missing(
            self.change(RouteNetlinkMessage::DelRule(message(rule)), 0, || {
                format!("delete rule {}", text(rule))
            })
            .await,
        )
    }
}

fn text(rule: &Rule) -> String {
    let iif = rule.iif.as_deref().unwrap_or("any");
    format!(
        "{:?} iif {iif} lookup {} pref {}",
        rule.family, rule.table, rule.priority
    )
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = rule.family.to_netlink();
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)),
    ];
    if let Some(iif) = &rule.iif {
        message.attributes.push(RuleAttribute::Iifname(iif.clone()));
    }
    message
}

fn read(message: RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = message else {
        return None;
    };
    let header = &message.header;
    if header.action != RuleAction::ToTable || header.src_len != 0 || header.dst_len != 0 {
        return None;
    }
    let mut rule = Rule {
        family: Family::of_netlink(header.family)?,
        priority: 0,
        iif: None,
        table: u32::from(header.table),
        protocol: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
            RuleAttribute::Protocol(protocol) => rule.protocol = u8::from(*protocol),
            // Always sent; -1 (none) in a plain rule.
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            RuleAttribute::Other(_) => {}
            _ => return None,
        }
    }
    Some(rule)
}
