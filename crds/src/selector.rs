//! Label selectors: a schema with bounds that the API server can price, and matching.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Rule, Selector, SelectorExt};
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

fn one() -> Schema {
    let values = Rule::new(
        "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
    )
    .message("matchExpressions: give values with In and NotIn, and none with Exists and DoesNotExist");
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": { "type": "string", "maxLength": 63 },
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 32,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "type": "string", "minLength": 1, "maxLength": 317 },
                        "operator": { "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"] },
                        "values": {
                            "type": "array",
                            "maxItems": 64,
                            "items": { "type": "string", "maxLength": 63 },
                        },
                    },
                    "x-kubernetes-validations": [values],
                },
            },
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
