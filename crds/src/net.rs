//! A block of addresses as a user writes it, checked by the API server as far as CEL can see.

use std::borrow::Cow;

use kube::core::{Message, Rule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A CIDR (`192.0.2.0/24`) or an inclusive range (`192.0.2.10-192.0.2.20`, spaces allowed).
///
/// Kept as written; the allocator parses it. The API server refuses what is malformed, mixed
/// in family or has host bits set. A reversed range passes, for CEL cannot order addresses,
/// and becomes a condition of the pool.
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

/// Each rule must stand alone: the API server evaluates all of them, so the later ones pass
/// whatever an earlier one already refused.
fn rules() -> [Rule; 3] {
    let range = "self.contains('-') && self.split('-').size() == 2 && self.split('-').all(p, isIP(p.trim()))";
    [
        Rule::new(format!("isCIDR(self) || ({range})")).message(Message::Expression(
            "'spec.addresses: \"' + self + '\" is neither a CIDR nor a range; write 192.0.2.0/24, \
             192.0.2.10-192.0.2.20 or, for a single address, ' + \
             (isIP(self) ? (self + (ip(self).family() == 4 ? '/32' : '/128')) : '192.0.2.10/32')"
                .into(),
        )),
        Rule::new("!isCIDR(self) || cidr(self) == cidr(self).masked()").message(
            // `string(cidr(self).masked())` would name the network, but the API server cannot
            // price it and refuses the CRD.
            Message::Expression(
                "'spec.addresses: \"' + self + '\" has host bits set; write the network with all bits \
                 after the prefix zero, as in 192.0.2.0/24, or for this one address ' + \
                 self.split('/')[0] + (self.contains(':') ? '/128' : '/32')"
                    .into(),
            ),
        ),
        Rule::new(format!(
            "!({range}) || ip(self.split('-')[0].trim()).family() == ip(self.split('-')[1].trim()).family()"
        ))
        .message(Message::Expression(
            "'spec.addresses: \"' + self + '\" mixes IPv4 and IPv6; write one range per family'"
                .into(),
        )),
    ]
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
