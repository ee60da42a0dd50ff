//! Heartbeat keys: derived from the shared secret, two of them live during rotation.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Length of the authentication tag in bytes.
pub const TAG_LEN: usize = 16;

/// Separates this use of the secret from any other.
const LABEL: &[u8] = b"lightship heartbeat key v1";

/// One authentication key.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// Derives the key of heartbeats from the shared secret: HMAC-SHA-256(secret, label).
    pub fn derive(secret: &[u8]) -> Self {
        Self::labelled(secret, LABEL)
    }

    /// As [`Self::derive`] for another use, with a label of its own.
    pub fn labelled(secret: &[u8], label: &[u8]) -> Self {
        let derived = keyed(secret).chain_update(label).finalize().into_bytes();
        Self(keyed(&derived))
    }

    /// The tag of `body`.
    pub fn tag(&self, body: &[u8]) -> [u8; TAG_LEN] {
        let full = self.0.clone().chain_update(body).finalize().into_bytes();
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&full[..TAG_LEN]);
        tag
    }

    fn verify(&self, body: &[u8], tag: &[u8]) -> bool {
        // Compares in constant time.
        self.0
            .clone()
            .chain_update(body)
            .verify_truncated_left(tag)
            .is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The live keys. To rotate: give every speaker the new key as `previous` beside the old
/// `current`, then swap the two, then drop the old one.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Signs what we send; accepted.
    pub current: Key,
    /// Accepted as well.
    pub previous: Option<Key>,
}

impl Keys {
    /// Derives the live keys from their secrets.
    pub fn new(current: &[u8], previous: Option<&[u8]>) -> Self {
        Self::labelled(current, previous, LABEL)
    }

    /// As [`Self::new`] for another use, with a label of its own.
    pub fn labelled(current: &[u8], previous: Option<&[u8]>, label: &[u8]) -> Self {
        Self {
            current: Key::labelled(current, label),
            previous: previous.map(|secret| Key::labelled(secret, label)),
        }
    }

    pub(crate) fn verify(&self, body: &[u8], tag: &[u8]) -> bool {
        // A short tag would be compared as a prefix only.
        tag.len() == TAG_LEN
            && (self.current.verify(body, tag)
                || self
                    .previous
                    .as_ref()
                    .is_some_and(|key| key.verify(body, tag)))
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"))
}
