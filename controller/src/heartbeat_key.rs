//! The Secret with which the speakers authenticate their heartbeats: made here, because only one of
//! the controllers' writes can win, and the speakers need no right to create it. One that is there
//! is never written.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use lightship_crds::{HEARTBEAT_SECRET, HEARTBEAT_SECRET_KEY};
use rand::Rng;

/// How often it is looked for.
const LOOK: Duration = Duration::from_secs(3);
/// Longest pause after a failure.
const LONGEST: Duration = Duration::from_secs(30);

/// Creates the Secret if it is missing: at once at the start, later when it is missing at two looks
/// in a row, so that who replaces it by deleting it first is not forestalled.
pub async fn keep(client: Client, namespace: String) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let name = HEARTBEAT_SECRET;
    let mut pause = Duration::from_millis(200);
    let mut missing = true;
    loop {
        match look(&api, missing).await {
            Ok(Found::There) => missing = false,
            Ok(Found::Missing) => {
                tracing::warn!(namespace, secret = name, "the heartbeat key was deleted");
                missing = true;
            }
            Ok(Found::Created) => {
                tracing::info!(namespace, secret = name, "heartbeat key created");
                missing = false;
            }
            Err(error) => {
                tracing::warn!(namespace, %error, "cannot look after the heartbeat key, will try again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
                continue;
            }
        }
        pause = Duration::from_millis(200);
        tokio::time::sleep(LOOK).await;
    }
}

/// What a look led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    There,
    Missing,
    Created,
}

/// Looks for the Secret, and creates it if it is missing and is to be made.
async fn look(api: &Api<Secret>, make: bool) -> Result<Found, Error> {
    if api.get_metadata_opt(HEARTBEAT_SECRET).await?.is_some() {
        return Ok(Found::There);
    }
    if !make {
        return Ok(Found::Missing);
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
        Ok(_) => Ok(Found::Created),
        Err(Error::Api(status)) if status.is_already_exists() => Ok(Found::There),
        Err(error) => Err(error),
    }
}
