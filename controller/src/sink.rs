//! Writing to the API server.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Client, Error, Resource};
use lightship_crds::{AddressPool, CONDITION_ASSIGNED, MANAGER_CONTROLLER, VirtualIP};
use lightship_kit::asked_pause;
use serde_json::{Value, json};

use crate::leader::Authority;
use crate::model::{Revision, Told, Write};
use crate::writer::{Failure, Outcome, Sink};

/// Bad Request, Forbidden (by RBAC, a quota or an admission policy), Content Too Large and
/// Unprocessable Content: the same again gets the same answer until somebody changes something.
const REFUSED: [u16; 4] = [400, 403, 413, 422];

/// Too Many Requests, Service Unavailable, Gateway Timeout.
const BUSY: [u16; 3] = [429, 503, 504];

/// The API server.
pub struct ApiServer {
    client: Client,
    authority: Authority,
}

impl ApiServer {
    /// Writes with this client, as long as `authority` holds.
    pub fn new(client: Client, authority: Authority) -> Self {
        Self { client, authority }
    }

    async fn send(&self, write: &Write) -> Result<Outcome, Error> {
        let written = match write {
            // Creation is the fence: of all who want the address, one succeeds.
            Write::Vip {
                name,
                seen: None,
                spec,
            } => {
                let params = PostParams {
                    field_manager: Some(MANAGER_CONTROLLER.into()),
                    ..PostParams::default()
                };
                let object = VirtualIP::new(name, spec.clone());
                self.vips().create(&params, &object).await?.metadata
            }
            Write::Vip {
                name,
                seen: Some(seen),
                spec,
            } => {
                let mut patch = json!({ "metadata": only(seen), "spec": spec });
                // What is left out of a merge patch stays; null removes it.
                patch["spec"]["onShrink"] = json!(spec.on_shrink);
                let patch = Patch::Merge(patch);
                self.vips().patch(name, &merge(), &patch).await?.metadata
            }
            Write::DropVip { seen: None, .. } => return Ok(Outcome::Void),
            Write::DropVip {
                name,
                seen: Some(seen),
            } => {
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: Some(seen.uid.clone()),
                    resource_version: Some(seen.version.clone()),
                });
                let _ = self.vips().delete(name, &params).await?;
                return Ok(Outcome::Written(None));
            }
            Write::PoolStatus { name, seen, status } => {
                let object = json!({
                    "apiVersion": AddressPool::api_version(&()),
                    "kind": AddressPool::kind(&()),
                    "metadata": { "name": name, "uid": seen.uid, "resourceVersion": seen.version },
                    "status": status,
                });
                let api: Api<AddressPool> = Api::all(self.client.clone());
                let patch = Patch::Apply(object);
                api.patch_status(name, &ours(), &patch).await?.metadata
            }
            Write::ServiceStatus {
                service,
                seen,
                addresses,
                told,
            } => {
                // Strategic: other controllers' conditions stay, and the ingress is replaced as
                // a whole, whoever wrote it; null removes it.
                let mut status = json!({ "conditions": [condition(told.as_ref())] });
                if let Some(addresses) = addresses {
                    let entries = addresses.iter();
                    let entries = entries.map(|ip| json!({ "ip": ip, "ipMode": "VIP" }));
                    let ingress = match addresses[..] {
                        [] => Value::Null,
                        _ => entries.collect(),
                    };
                    status["loadBalancer"] = json!({ "ingress": ingress });
                }
                let patch = json!({ "metadata": only(seen), "status": status });
                // Of the answer, only the metadata is of interest.
                let api: Api<PartialObjectMeta<Service>> =
                    Api::namespaced(self.client.clone(), &service.namespace);
                let patch = Patch::Strategic(patch);
                let answer = api.patch_status(&service.name, &merge(), &patch).await?;
                answer.metadata
            }
        };
        Ok(Outcome::Written(Some(Revision {
            uid: written.uid.unwrap_or_default(),
            version: written.resource_version.unwrap_or_default(),
        })))
    }

    fn vips(&self) -> Api<VirtualIP> {
        Api::all(self.client.clone())
    }
}

/// Our condition on a Service in a strategic merge patch.
fn condition(told: Option<&Told>) -> Value {
    let Some(told) = told else {
        return json!({ "$patch": "delete", "type": CONDITION_ASSIGNED });
    };
    json!({
        "type": CONDITION_ASSIGNED,
        "status": if told.verdict.met { "True" } else { "False" },
        "reason": told.verdict.reason,
        "message": told.verdict.message,
        "lastTransitionTime": Time(told.since),
    })
}

/// Makes a patch fail on any other state of the object.
fn only(seen: &Revision) -> Value {
    json!({ "uid": seen.uid, "resourceVersion": seen.version })
}

fn merge() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER_CONTROLLER.into()),
        ..PatchParams::default()
    }
}

/// Force: these fields are ours alone, and an edit by hand is to be undone.
fn ours() -> PatchParams {
    PatchParams::apply(MANAGER_CONTROLLER).force()
}

impl Sink for ApiServer {
    async fn write(&self, write: &Write) -> Result<Outcome, Failure> {
        if !self.authority.holds() {
            return Ok(Outcome::Void);
        }
        match self.send(write).await {
            Ok(outcome) => Ok(outcome),
            Err(Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(Outcome::Conflict(status.message.clone()))
            }
            // A VirtualIP that is wanted but gone is to be created.
            Err(Error::Api(status)) if status.is_not_found() => Ok(match write {
                Write::Vip { .. } => Outcome::Conflict(status.message.clone()),
                _ => Outcome::Void,
            }),
            Err(Error::Api(status)) if REFUSED.contains(&status.code) => {
                Ok(Outcome::Refused(status.message.clone()))
            }
            Err(error) => Err(Failure {
                asked: asked_pause(&error),
                busy: match &error {
                    Error::Api(status) => BUSY.contains(&status.code),
                    // No answer: the connection broke, or did not come about.
                    _ => true,
                },
                reason: error.to_string(),
            }),
        }
    }
}
