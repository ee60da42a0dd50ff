//! What comes from other threads, of which there is rarely any news.

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all, unfold};
use tokio::sync::watch;

use super::Links;

/// Of which of the [`Links`] there is another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    World,
    Secrets,
    Uplink,
    Verdict,
    Kept,
    Networks,
    Further,
    Serves,
    Stop,
}

/// Each change since the receivers were last read. To wait for each of them at each turn of the core's loop would cost more than
/// what the loop does when a heartbeat comes; of these, only those are looked at that have news.
pub(super) fn changes(links: &Links) -> SelectAll<BoxStream<'static, Input>> {
    select_all([
        of(&links.world, Input::World),
        of(&links.secrets, Input::Secrets),
        of(&links.uplink, Input::Uplink),
        of(&links.verdict, Input::Verdict),
        of(&links.kept, Input::Kept),
        of(&links.networks, Input::Networks),
        of(&links.further, Input::Further),
        of(&links.serves, Input::Serves),
        of(&links.stop, Input::Stop),
    ])
}

/// Until the sender is gone.
fn of<T: Send + Sync + 'static>(
    receiver: &watch::Receiver<T>,
    input: Input,
) -> BoxStream<'static, Input> {
    let changes = unfold(receiver.clone(), move |mut receiver| async move {
        receiver.changed().await.ok()?;
        Some((input, receiver))
    });
    changes.boxed()
}
