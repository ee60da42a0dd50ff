//! Events on the node's Speaker: somebody changed what it made, and it was put back.

use std::time::Duration;

use kube::Client;
use lightship_crds::Speaker;
use tokio::sync::watch;

use super::{Said, send};
use crate::drift::Mended;
use lightship_core::world::NodeName;

/// There is one event in so long a time: what changes something by hand may do so in a loop.
const PAUSE: Duration = Duration::from_secs(60);

/// The API server takes notes of up to 1024 bytes.
const LONGEST: usize = 900;

/// Sends events until the sender is gone.
pub async fn run(client: Client, node: NodeName, mut mended: watch::Receiver<Mended>) {
    let mut told = 0;
    while mended.changed().await.is_ok() {
        let now = mended.borrow_and_update().clone();
        let said = said(&now, now.times() - told);
        told = now.times();
        send::<Speaker>(&client, &node, &node, said).await;
        tokio::time::sleep(PAUSE).await;
    }
}

fn said(now: &Mended, times: u64) -> Said {
    let end = now.what.floor_char_boundary(LONGEST);
    let what = &now.what[..end];
    let note = if times > 1 {
        format!(
            "somebody else changed what the speaker made {times} times; put back, the last time: {what}"
        )
    } else {
        format!("somebody else changed what the speaker made; put back: {what}")
    };
    Said {
        warning: true,
        reason: "ChangedByHand",
        action: "PutBack",
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_and_how_often_and_fits() {
        let mut now = Mended {
            director: 1,
            what: "IPVS (3 differences)".into(),
            ..Mended::default()
        };
        let note = said(&now, 1).note;
        assert!(note.ends_with("put back: IPVS (3 differences)"), "{note}");
        now.guard = 4;
        let note = said(&now, 4).note;
        assert!(note.contains("4 times"), "{note}");
        now.what = "ä".repeat(2000);
        assert!(said(&now, 4).note.len() <= 1024);
    }
}
