//! Writing to the API server.

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, Error, Resource};
use lightship_crds::{AddressPool, MANAGER_CONTROLLER, VirtualIP};
use serde_json::{Value, json};

use crate::model::Write;
use crate::writer::Sink;

/// The API server.
pub struct ApiServer {
    client: Client,
}

impl ApiServer {
    /// Writes with this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn send(&self, write: &Write) -> Result<(), Error> {
        match write {
            Write::Vip { name, spec } => {
                let object = typed::<VirtualIP>(name, "spec", json!(spec));
                self.vips()
                    .patch(name, &ours(), &Patch::Apply(object))
                    .await?;
            }
            Write::DropVip { name } => {
                let _ = self.vips().delete(name, &DeleteParams::default()).await?;
            }
            Write::PoolStatus { name, status } => {
                let object = typed::<AddressPool>(name, "status", json!(status));
                let api: Api<AddressPool> = Api::all(self.client.clone());
                api.patch_status(name, &ours(), &Patch::Apply(object))
                    .await?;
            }
            Write::Ingress {
                service,
                uid,
                addresses,
            } => {
                let ingress: Vec<Value> = addresses
                    .iter()
                    .map(|ip| json!({ "ip": ip, "ipMode": "VIP" }))
                    .collect();
                // A merge patch replaces the list as a whole, whoever wrote it, and null removes
                // it. The uid makes the patch fail on a later Service of the same name.
                let ingress = if ingress.is_empty() {
                    Value::Null
                } else {
                    ingress.into()
                };
                let patch = json!({
                    "metadata": { "uid": uid },
                    "status": { "loadBalancer": { "ingress": ingress } },
                });
                let api: Api<Service> = Api::namespaced(self.client.clone(), &service.namespace);
                let params = PatchParams {
                    field_manager: Some(MANAGER_CONTROLLER.into()),
                    ..PatchParams::default()
                };
                api.patch_status(&service.name, &params, &Patch::Merge(patch))
                    .await?;
            }
        }
        Ok(())
    }

    fn vips(&self) -> Api<VirtualIP> {
        Api::all(self.client.clone())
    }
}

/// Force: these fields are ours alone, and an edit by hand is to be undone.
fn ours() -> PatchParams {
    PatchParams::apply(MANAGER_CONTROLLER).force()
}

fn typed<K: Resource<DynamicType = ()>>(name: &str, part: &str, value: Value) -> Value {
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name },
        part: value,
    })
}

impl Sink for ApiServer {
    type Error = Error;

    async fn write(&self, write: &Write) -> Result<(), Error> {
        match self.send(write).await {
            // The object is gone, or another one has its name: whatever the watcher says about
            // it next leads to a new decision.
            Err(Error::Api(status)) if status.is_not_found() || is_other_uid(&status.message) => {
                tracing::debug!(?write, reason = %status.message, "write has no object any more");
                Ok(())
            }
            result => result,
        }
    }
}

fn is_other_uid(message: &str) -> bool {
    message.contains("UID in precondition") || message.contains("metadata.uid")
}
