//! Label selectors: a schema with bounds that the API server can price, and matching.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Message, Rule, Selector, SelectorExt};
use schemars::{Schema, SchemaGenerator, json_schema};

/// Labels of an object.
pub type LabelSet = BTreeMap<String, String>;

/// True if any of the selectors matches the labels; false for an empty list. A selector that
/// is malformed in a way the schema let through matches nothing: it closes, it never opens.
pub fn matches_any(selectors: &[LabelSelector], labels: &LabelSet) -> bool {
    selectors.iter().any(|selector| {
        Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
    })
}

/// What a label's key must match: a name of at most 63 characters after an optional DNS subdomain.
const KEY: &str =
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
const KEY_FIX: &str =
    "a label key is a name such as tier, or a domain and a name such as example.com/tier";

/// What a label's value must not match, in two parts that the API server can price: what is
/// no letter, digit, dash, underscore or dot; and one of the latter three at an end.
const VALUE: [&str; 2] = [r"[^-\w.]", r"^[\W_]|[\W_]$"];
const VALUE_FIX: &str = "a label value is made of letters, digits, dashes, underscores and dots, and begins and ends with a letter or digit";

/// A regular expression as CEL writes it.
fn quoted(pattern: &str) -> String {
    format!("'{}'", pattern.replace('\\', r"\\"))
}

/// A rule for a text, with a message that names it.
fn text_rule(rule: String, fix: &str) -> Rule {
    Rule::new(rule).message(Message::Expression(format!("'\"' + self + '\": {fix}'")))
}

fn values() -> [Rule; 2] {
    VALUE.map(|bad| text_rule(format!("!self.matches({})", quoted(bad)), VALUE_FIX))
}

fn one() -> Schema {
    let arity = Rule::new(
        "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
    )
    .message("matchExpressions: give values with In and NotIn, and none with Exists and DoesNotExist");
    let key = quoted(KEY);
    let keys = Rule::new(format!("self.all(k, k.matches({key}))"))
        .message(&*format!("matchLabels: {KEY_FIX}"));
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": {
                    "type": "string",
                    "maxLength": 63,
                    "x-kubernetes-validations": values(),
                },
                "x-kubernetes-validations": [keys],
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 32,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 317,
                            "x-kubernetes-validations": [text_rule(format!("self.matches({key})"), KEY_FIX)],
                        },
                        "operator": { "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"] },
                        "values": {
                            "type": "array",
                            "maxItems": 64,
                            "items": {
                                "type": "string",
                                "maxLength": 63,
                                "x-kubernetes-validations": values(),
                            },
                        },
                    },
                    "x-kubernetes-validations": [arity],
                },
            },
        },
    })
}

/// Schema of a list of namespaces by name.
pub(crate) fn namespaces_schema(_: &mut SchemaGenerator) -> Schema {
    let name = text_rule(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')".into(),
        "a namespace has a name of lowercase letters, digits and dashes that begins and ends with a \
         letter or digit; to select by label, write namespaceSelectors",
    );
    json_schema!({
        "type": "array",
        "maxItems": 256,
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 63,
            "x-kubernetes-validations": [name],
        },
    })
}

/// Schema of one selector.
pub(crate) fn selector_schema(_: &mut SchemaGenerator) -> Schema {
    one()
}

/// Schema of a bounded list of selectors.
pub(crate) fn list_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 32, "items": one() })
}
