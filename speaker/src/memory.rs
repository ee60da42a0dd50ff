//! Keeps the process about as small as what it uses.

use std::time::Duration;

/// From the start until the first look: all has been listed by then.
const FIRST: Duration = Duration::from_secs(20);

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(60);

/// Gives memory back that was used for a moment only, for ever.
pub(crate) async fn run() {
    tokio::time::sleep(FIRST).await;
    loop {
        match lightship_netio::give_back() {
            Ok(Some(bytes)) => tracing::debug!(bytes, "free memory given back"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "free memory cannot be given back"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
