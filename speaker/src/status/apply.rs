//! One status on its way to the API server: applied server-side under the one name that all
//! speakers share, so that a field which this owner does not state goes when the owner changes,
//! and conditions that others set stay.

use kube::Api;
use kube::api::{Patch, PatchParams};
use lightship_crds::{MANAGER_SPEAKER, VirtualIP};
use serde_json::{Value, json};

/// Fields that only the object knows: what it says of them is stated again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carried {
    Nothing,
    /// What led to an ownership that is older than this process.
    Move,
    /// What stays of the last owner where nobody is one.
    LastOwner,
}

impl Carried {
    pub(super) fn fields(self) -> &'static [&'static str] {
        match self {
            Carried::Nothing => &[],
            Carried::Move => &["lastMove"],
            Carried::LastOwner => &["epoch", "lastMove", "movedTo"],
        }
    }
}

/// Applies a status; returns it as it was written.
///
/// What is carried over is read first, on the condition that nobody writes the object meanwhile:
/// an epoch, for one, must not go back to what it was before.
///
/// # Errors
/// What the API server answers, or that the object has changed.
pub(super) async fn apply(
    api: &Api<VirtualIP>,
    name: &str,
    mut status: Value,
    carried: Carried,
) -> Result<Value, String> {
    let mut object = json!({
        "apiVersion": "lightship.dev/v1beta1",
        "kind": "VirtualIP",
        "metadata": { "name": name },
    });
    let carried = carried.fields();
    if !carried.is_empty() {
        let seen = api.get(name).await.map_err(|e| e.to_string())?;
        object["metadata"]["resourceVersion"] = json!(seen.metadata.resource_version);
        let before = serde_json::to_value(seen.status).map_err(|e| e.to_string())?;
        for field in carried {
            status[field] = before[field].clone();
        }
    }
    object["status"] = stated(status.clone());
    // Force: an owner states what is so now, whoever said otherwise before.
    let params = PatchParams::apply(MANAGER_SPEAKER).force();
    api.patch_status(name, &params, &Patch::Apply(object))
        .await
        .map_err(|e| e.to_string())?;
    Ok(status)
}

/// Without the fields that are not there: what is not stated is removed.
fn stated(mut status: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    status
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response};
    use kube::Client;
    use kube::client::Body;

    use super::*;

    const OBJECT: &str = r#"{
        "apiVersion": "lightship.dev/v1beta1", "kind": "VirtualIP",
        "metadata": { "name": "192.0.2.1", "resourceVersion": "7" },
        "spec": { "address": "192.0.2.1", "pool": "lan", "services": [], "usedBy": "" },
        "status": { "owner": "node9", "epoch": 6, "movedTo": "node9" }
    }"#;

    /// What is asked for when this status is applied.
    async fn asked(status: Value, carried: Carried) -> Vec<(Method, Value)> {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let asked = heard.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let asked = asked.clone();
            async move {
                let (parts, body) = request.into_parts();
                let query = parts.uri.query().unwrap_or_default();
                if parts.method == Method::PATCH {
                    assert!(query.contains("force=true"), "{query}");
                    assert!(query.contains("fieldManager=lightship-speaker"), "{query}");
                }
                let bytes = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&bytes).unwrap_or_default();
                asked.lock().unwrap().push((parts.method, body));
                let answer = Body::from(OBJECT.as_bytes().to_vec());
                Ok::<_, Infallible>(Response::new(answer))
            }
        });
        let api: Api<VirtualIP> = Api::all(Client::new(service, "default"));
        apply(&api, "192.0.2.1", status, carried).await.unwrap();
        std::mem::take(&mut *heard.lock().unwrap())
    }

    #[tokio::test]
    async fn what_is_null_is_left_out() {
        let asked = asked(
            json!({ "owner": "node1", "movedTo": null }),
            Carried::Nothing,
        )
        .await;
        assert_eq!(asked.len(), 1);
        let (method, body) = &asked[0];
        assert_eq!(*method, Method::PATCH);
        assert_eq!(body["status"], json!({ "owner": "node1" }));
        assert_eq!(body["metadata"], json!({ "name": "192.0.2.1" }));
    }

    #[tokio::test]
    async fn what_only_the_object_knows_is_stated_again_if_nobody_wrote_meanwhile() {
        let asked = asked(json!({ "owner": null }), Carried::LastOwner).await;
        assert_eq!(asked[0].0, Method::GET);
        let body = &asked[1].1;
        assert_eq!(body["status"], json!({ "epoch": 6, "movedTo": "node9" }));
        assert_eq!(body["metadata"]["resourceVersion"], "7");
    }
}
