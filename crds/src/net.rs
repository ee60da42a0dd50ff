//! A block of addresses as a user writes it, checked by the API server as far as CEL can see.

use std::borrow::Cow;
use std::ops::Range;

use kube::core::{Message, Rule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A CIDR (`192.0.2.0/24`) or an inclusive range (`192.0.2.10-192.0.2.20`, spaces allowed).
///
/// Kept as written; the allocator parses it. The API server refuses what is malformed, mixed
/// in family, reversed or has host bits set, and what begins or ends with an address that no host
/// has; a block that has such addresses in its middle becomes a condition of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressBlock(pub String);

impl AddressBlock {
    /// The text as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for AddressBlock {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Two IPv6 addresses of 39 characters, a dash, and room for spaces.
const MAX_LENGTH: u32 = 88;

/// A range of two addresses, of whatever families.
const RANGE: &str =
    "self.contains('-') && self.split('-').size() == 2 && self.split('-').all(p, isIP(p.trim()))";
const FIRST: &str = "self.split('-')[0].trim()";
const LAST: &str = "self.split('-')[1].trim()";

/// Each rule must stand alone: the API server evaluates all of them, so the later ones pass
/// whatever an earlier one already refused.
fn rules() -> Vec<Rule> {
    let mut rules = vec![
        refused(
            format!("isCIDR(self) || ({RANGE})"),
            "is neither a CIDR nor a range; write 192.0.2.0/24, 192.0.2.10-192.0.2.20 or, for a \
             single address, ' + \
             (isIP(self) ? (self + (ip(self).family() == 4 ? '/32' : '/128')) : '192.0.2.10/32') + '",
        ),
        // `string(cidr(self).masked())` would name the network, but the API server cannot price
        // it and refuses the CRD.
        refused(
            "!isCIDR(self) || cidr(self) == cidr(self).masked()".into(),
            "has host bits set; write the network with all bits after the prefix zero, as in \
             192.0.2.0/24, or for this one address ' + \
             self.split('/')[0] + (self.contains(':') ? '/128' : '/32') + '",
        ),
        refused(
            format!("!({RANGE}) || ip({FIRST}).family() == ip({LAST}).family()"),
            "mixes IPv4 and IPv6; write one range per family",
        ),
    ];
    // In parts, each of which the API server deems cheap enough.
    rules.extend([0..32, 32..80, 80..128].map(ordered));
    let no_host = "begins or ends with an address that no host has (0.0.0.0/8, 127.0.0.0/8, \
                   169.254.0.0/16, 224.0.0.0/4, ::/96, fe80::/10, ff00::/8); write addresses of your LAN";
    rules.push(refused(
        format!(
            "!({RANGE}) || self.split('-').all(p, {})",
            host("ip(p.trim())")
        ),
        no_host,
    ));
    rules.push(refused(
        format!("!isCIDR(self) || {}", host("cidr(self).ip()")),
        no_host,
    ));
    rules
}

/// A rule, and what its message says after the block.
fn refused(rule: String, said: &str) -> Rule {
    let text = format!("'spec.addresses: \"' + self + '\" {said}'");
    // Where the text ends with an expression.
    let text = text.strip_suffix(" + ''").unwrap_or(&text);
    Rule::new(rule).message(Message::Expression(text.to_owned()))
}

/// That a range does not end before it starts, if its ends have one of these numbers of leading
/// bits in common. CEL cannot order addresses, but then the next bit of the last address has to be
/// 1, and masking that bit too has to change the address.
fn ordered(common: Range<u8>) -> Rule {
    // The lengths n and n + 1 as text of known size: without that the API server cannot price the rule.
    let lengths: Vec<_> = common.map(|n| format!("'{n:3}{:3}'", n + 1)).collect();
    let lengths = lengths.join(",");
    let last = |bits: &str| format!("cidr({LAST} + '/' + {bits})");
    let (short, long) = (
        last("n.substring(0, 3).trim()"),
        last("n.substring(3).trim()"),
    );
    refused(
        format!(
            "!({RANGE}) || ip({FIRST}).family() != ip({LAST}).family() || \
             ![{lengths}].exists(n, (self.contains(':') || int(n.substring(3).trim()) <= 32) && \
             {short}.containsIP({FIRST}) && !{long}.containsIP({FIRST}) && \
             {short}.masked().ip() == {long}.masked().ip())"
        ),
        &format!("ends before it starts; write ' + {LAST} + '-' + {FIRST} + '"),
    )
}

/// That a host may have the address (`isGlobalUnicast` also holds for private ones).
fn host(address: &str) -> String {
    format!(
        "({address}.isGlobalUnicast() && !cidr('0.0.0.0/8').containsIP({address}) && \
         !cidr('::/96').containsIP({address}))"
    )
}

impl JsonSchema for AddressBlock {
    fn schema_name() -> Cow<'static, str> {
        "AddressBlock".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 3,
            "maxLength": MAX_LENGTH,
            "x-kubernetes-validations": rules(),
        })
    }
}
