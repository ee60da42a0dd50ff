//! The files in `yaml/` are what `crdgen` prints, and the API server can accept them.

use std::path::Path;

use serde_json::Value;

#[test]
fn yaml_files_equal_the_generator_output() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for file in lightship_crds::crd_files().unwrap() {
        let path = directory.join(&file.name);
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == file.text,
            "{} is stale; run: cargo xtask gen",
            path.display()
        );
    }
}

/// The rules of apiextensions' structural schemas (`schema/validation.go`), and bounds on all
/// lists and maps of ours, without which the API server cannot price CEL rules.
#[test]
fn schemas_are_structural_and_bounded() {
    let mut faults = Vec::new();
    for file in lightship_crds::crd_files().unwrap() {
        let version = &file.crd.spec.versions[0];
        let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref();
        let schema = serde_json::to_value(schema.unwrap()).unwrap();
        walk(&schema, &file.name, &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_check_finds_faults() {
    for (schema, fault) in [
        (serde_json::json!({}), "no type"),
        (
            serde_json::json!({"type": "string", "oneOf": [{"title": "a"}]}),
            "title under oneOf",
        ),
        (
            serde_json::json!({"type": "array", "items": {"type": "string"}}),
            "no maxItems",
        ),
        (
            serde_json::json!({"type": "object", "additionalProperties": {"type": "string"}}),
            "no maxProperties",
        ),
    ] {
        let mut faults = Vec::new();
        walk(&schema, "x", &mut faults);
        assert!(faults.join(" ").contains(fault), "{schema}: {faults:?}");
    }
}

fn walk(schema: &Value, path: &str, faults: &mut Vec<String>) {
    match schema["type"].as_str() {
        None => faults.push(format!("{path}: no type")),
        Some("array") if schema["maxItems"].is_null() => {
            faults.push(format!("{path}: no maxItems"));
        }
        Some("object")
            if schema["additionalProperties"].is_object() && schema["maxProperties"].is_null() =>
        {
            faults.push(format!("{path}: no maxProperties"));
        }
        Some(_) => {}
    }
    for junctor in ["oneOf", "anyOf", "allOf"] {
        for branch in schema[junctor].as_array().into_iter().flatten() {
            forbid(branch, &format!("{path}.{junctor}"), junctor, faults);
        }
    }
    if schema["not"].is_object() {
        forbid(&schema["not"], &format!("{path}.not"), "not", faults);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), faults);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            walk(&schema[below], &format!("{path}.{below}"), faults);
        }
    }
}

fn forbid(branch: &Value, path: &str, junctor: &str, faults: &mut Vec<String>) {
    for key in ["type", "title", "default", "description"] {
        if !branch[key].is_null() {
            faults.push(format!("{path}: {key} under {junctor}"));
        }
    }
}
