//! What somebody else changed on this node and was put back: counted, and told for events.

use tokio::sync::watch;

/// What was put back since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Times that it was something of the director.
    pub director: u64,
    /// Times that it was the loop guard.
    pub guard: u64,
    /// What it was the last time.
    pub what: String,
}

impl Mended {
    /// Times in all.
    pub fn times(&self) -> u64 {
        self.director + self.guard
    }
}

/// Where it is told.
#[derive(Clone, Debug, Default)]
pub struct Drift(watch::Sender<Mended>);

impl Drift {
    /// Something of the director was put back.
    pub fn director(&self, what: &str) {
        self.0.send_modify(|mended| {
            mended.director += 1;
            mended.what = what.to_owned();
        });
    }

    /// Something of the loop guard was.
    pub fn guard(&self, what: &str) {
        self.0.send_modify(|mended| {
            mended.guard += 1;
            mended.what = what.to_owned();
        });
    }

    /// To hear of it.
    pub fn subscribe(&self) -> watch::Receiver<Mended> {
        self.0.subscribe()
    }
}
