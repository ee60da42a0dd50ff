//! The last known state, kept on the node.
//!
//! One small file (on a tmpfs, so a reboot clears it) holds the world as last read from
//! the API server, what peers told about themselves, the heartbeat keys and the VIPs this
//! speaker owns. A speaker that restarts while the API server is away reads it and goes on.
//! The first line carries a checksum; a file that does not match is ignored with a warning,
//! because a wrong belief is worse than none.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::further::Further;
use crate::path::Kept;
use crate::world::{NodeName, World};

const HEADER: &str = "lightship-state 1 ";

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The world as last read from the API server.
    pub world: Arc<World>,
    /// What each peer said of itself in its last heartbeat.
    pub peers: BTreeMap<NodeName, SavedPeer>,
    /// The VIPs this node owns, with their epochs.
    pub claims: BTreeMap<IpAddr, u64>,
    /// The heartbeat secrets, newest first.
    pub secrets: Vec<Vec<u8>>,
    /// The boot id and counter of each peer's newest heartbeat when this was written: what is not
    /// newer is refused after a restart, too.
    #[serde(default)]
    pub heard: BTreeMap<NodeName, (u64, u64)>,
    /// The boot id of the last start: the next one is greater even if the clock went back.
    #[serde(default)]
    pub boot_id: u64,
    /// Of the kernel's boot in which this was written (`/proc/sys/kernel/random/boot_id`); empty if it is not known.
    #[serde(default)]
    pub kernel_boot: Arc<str>,
    /// The node could not take a share yet (the speaker's `proxy`).
    #[serde(default)]
    pub idle: bool,
    /// What the path test had found, where not all was well.
    #[serde(default)]
    pub paths: Kept,
}

/// What a peer last said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPeer {
    /// The MAC of its uplink, where directors send its share.
    pub uplink_mac: [u8; 6],
    /// The MAC of its director, which it announces VIPs with.
    #[serde(default)]
    pub director_mac: [u8; 6],
    /// Whether it has a director.
    pub direct_routing: bool,
    /// The name of its uplink; empty if it did not say.
    #[serde(default)]
    pub interface: Arc<str>,
    /// The networks on its uplink; empty if it did not say.
    #[serde(default)]
    pub networks: Arc<[IpNet]>,
    /// Its further uplinks.
    #[serde(default)]
    pub further: Arc<[Further]>,
}

impl SavedPeer {
    /// The MACs of all its uplinks and of its director there.
    pub fn macs(&self) -> impl Iterator<Item = [u8; 6]> {
        let further = self.further.iter().flat_map(|f| [f.mac, f.director_mac]);
        [self.uplink_mac, self.director_mac]
            .into_iter()
            .chain(further)
    }
}

/// Why a state file was not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is none: the first start on this node since it booted.
    #[error("there is no state file yet")]
    Missing,
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It is cut short, altered, of another version, or of an earlier boot.
    #[error("{path} is {what}; it is ignored and will be written anew")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Reads the state file. `kernel_boot` is the kernel's boot as [`Saved::kernel_boot`] has it, or empty if it cannot be told:
/// after a reboot nothing of what it says of this node is so any more, and others have had its VIPs since.
///
/// # Errors
/// When there is none, it cannot be read, its checksum or form is wrong, or it is of an earlier boot.
pub fn load(path: &Path, kernel_boot: &str) -> Result<Saved, LoadError> {
    let unusable = |what| LoadError::Unusable {
        path: path.to_owned(),
        what,
    };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(LoadError::Missing),
        Err(source) => {
            return Err(LoadError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let saved = decode(&bytes).map_err(unusable)?;
    let both = !saved.kernel_boot.is_empty() && !kernel_boot.is_empty();
    if both && *saved.kernel_boot != *kernel_boot {
        return Err(unusable("of an earlier boot"));
    }
    Ok(saved)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// What is wrong with it, to be put after "the file is".
pub fn decode(bytes: &[u8]) -> Result<Saved, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "damaged (it is no text)")?;
    let (header, body) = text.split_once('\n').ok_or("cut short")?;
    let sum = header.strip_prefix(HEADER).ok_or("of another version")?;
    if sum != checksum(body) {
        return Err("damaged (its checksum is wrong)");
    }
    serde_json::from_str(body).map_err(|_| "of another version")
}

/// The contents of the state file.
///
/// # Errors
/// None for what was made by the speaker: all of it has a form in JSON.
pub fn encode(saved: &Saved) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_string(saved).map(|body| seal(&body))
}

/// A body with its header line.
pub fn seal(body: &str) -> Vec<u8> {
    format!("{HEADER}{}\n{body}", checksum(body)).into_bytes()
}

/// Writes the state file so that a reader sees the old or the new one, never a part.
///
/// # Errors
/// When the folder or file cannot be written.
pub fn store(path: &Path, saved: &Saved) -> std::io::Result<()> {
    let contents = encode(saved)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("new");
    // The file holds the heartbeat secret.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&contents)?;
    std::fs::rename(&temporary, path)
}

fn checksum(body: &str) -> String {
    Sha256::digest(body.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::ServiceRef;

    fn sample() -> Saved {
        let mut saved = Saved::default();
        Arc::make_mut(&mut saved.world)
            .services
            .insert(ServiceRef::new("shop", "web"), Default::default());
        saved.peers.insert("node2".into(), SavedPeer::default());
        saved.claims.insert("2001:db8:2::200".parse().unwrap(), 7);
        saved.heard.insert("node2".into(), (u64::MAX, 9));
        saved.secrets.push(vec![1, 2, 3]);
        saved.kernel_boot = "now".into();
        saved
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/state");
        assert!(matches!(load(&path, "now"), Err(LoadError::Missing)));
        store(&path, &sample()).unwrap();
        assert_eq!(load(&path, "now").unwrap(), sample());
        // Of a release that did not know it, or where it cannot be read.
        assert_eq!(load(&path, "").unwrap(), sample());
        let unknown = Saved {
            kernel_boot: "".into(),
            ..sample()
        };
        store(&path, &unknown).unwrap();
        assert_eq!(load(&path, "now").unwrap(), unknown);
    }

    #[test]
    fn a_file_of_an_earlier_boot_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        store(&path, &sample()).unwrap();
        let error = load(&path, "later").unwrap_err().to_string();
        assert!(error.contains("of an earlier boot"), "{error}");
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        store(&path, &sample()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for (bad, reason) in [
            (text.replace("web", "wab"), "checksum"),
            (text[..text.len() - 5].to_owned(), "checksum"),
            (text.replace("state 1", "state 9"), "another version"),
            (String::new(), "cut short"),
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = load(&path, "now").unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
