//! What an object says of itself in its status, and waiting until it says something else.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, anyhow};
use lightship_lab::{Lab, sh};
use serde_json::Value;

/// Time between two looks.
const OFTEN: Duration = Duration::from_millis(200);

/// A condition of an object's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition<'a> {
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    /// The one word for it.
    pub reason: &'a str,
    /// The sentence for people.
    pub message: &'a str,
}

impl<'a> Condition<'a> {
    fn new(entry: &'a Value) -> Self {
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        Self {
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
        }
    }

    /// Has it this status, for this reason?
    pub fn is(&self, status: &str, reason: &str) -> bool {
        (self.status, self.reason) == (status, reason)
    }
}

fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    let all = object["status"]["conditions"].as_array();
    all.into_iter().flatten()
}

/// The condition of that type that an object has, if it has it.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<Condition<'a>> {
    let found = conditions(object).find(|entry| entry["type"] == kind);
    found.map(Condition::new)
}

/// Waits until an object, of that kind and name, is there and as `wanted` says, and gives it.
///
/// # Errors
/// When it is not within `limit` (longer where nodes are slow), with what its status said last.
pub fn wait(
    lab: &Lab,
    (kind, name): (&str, &str),
    what: &str,
    limit: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let mut last = Value::Null;
    let what = format!("{kind} {name} {what}");
    let found = sh::wait_for(&what, lab.within(limit), OFTEN, || {
        let text = lab.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"])?;
        last = match text.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text)?,
        };
        let right = !last.is_null() && wanted(&last);
        Ok(right.then(|| last.clone()))
    });
    found.map_err(|error| anyhow!("{error:#}; last seen:\n{}", shown(&last)))
}

/// An object's status for people: a line for each condition, and then the rest.
fn shown(object: &Value) -> String {
    if object.is_null() {
        return "there is none".to_owned();
    }
    let mut text = String::new();
    for entry in conditions(object) {
        let Condition {
            status,
            reason,
            message,
        } = Condition::new(entry);
        let kind = entry["type"].as_str().unwrap_or_default();
        let _ = writeln!(text, "{kind} is {status} ({reason}): {message}");
    }
    if text.is_empty() {
        text.push_str("no conditions\n");
    }
    let mut rest = object["status"].clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("conditions");
    }
    text + &rest.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn speaker() -> Value {
        json!({ "status": { "mode": "Announce", "conditions": [
            { "type": "Ready", "status": "False", "reason": "StrictARPOff", "message": "set it" },
            { "type": "PathsTested", "status": "True", "reason": "Passed" },
        ] } })
    }

    #[test]
    fn a_condition_is_found_by_its_type() {
        let speaker = speaker();
        let ready = condition(&speaker, "Ready").unwrap();
        assert!(ready.is("False", "StrictARPOff") && ready.message == "set it");
        assert!(!ready.is("True", "StrictARPOff") && !ready.is("False", "Running"));
        assert_eq!(condition(&speaker, "Backends"), None);
        assert_eq!(condition(&json!({}), "Ready"), None);
    }

    #[test]
    fn what_was_seen_last_is_said_with_every_condition() {
        let wanted = "Ready is False (StrictARPOff): set it\nPathsTested is True (Passed): \n\
                      {\"mode\":\"Announce\"}";
        assert_eq!(shown(&speaker()), wanted);
        assert_eq!(shown(&json!({})), "no conditions\nnull");
        assert_eq!(shown(&Value::Null), "there is none");
    }
}
