//! The Secret with which the speakers authenticate their heartbeats: made here, once, because
//! only one of the controllers' writes can win, and the speakers need no right to create it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use lightship_crds::{HEARTBEAT_SECRET, HEARTBEAT_SECRET_KEY};
use rand::Rng;

/// Creates the Secret if it is missing, however often that takes.
pub async fn ensure(client: Client, namespace: String) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let mut pause = Duration::from_millis(200);
    loop {
        match create(&api).await {
            Ok(true) => tracing::info!(
                namespace,
                secret = HEARTBEAT_SECRET,
                "heartbeat key created"
            ),
            Ok(false) => tracing::debug!(namespace, "heartbeat key is there"),
            Err(error) => {
                tracing::warn!(namespace, %error, "no heartbeat key yet, will try again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(30));
                continue;
            }
        }
        return;
    }
}

/// Whether the Secret was missing.
async fn create(api: &Api<Secret>) -> Result<bool, Error> {
    if api.get_opt(HEARTBEAT_SECRET).await?.is_some() {
        return Ok(false);
    }
    let mut key = [0u8; 32];
    rand::rng().fill_bytes(&mut key);
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(HEARTBEAT_SECRET.into()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".into()),
        data: Some(BTreeMap::from([(
            HEARTBEAT_SECRET_KEY.to_owned(),
            ByteString(key.to_vec()),
        )])),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}
