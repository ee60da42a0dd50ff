//! Which nodes are dead, and whether to say so. Pure: what was seen and the time go in, what to
//! do comes out.
//!
//! **Whose word counts.** Each node has witnesses ([`lightship_crds::witnesses`]); it is lost when
//! more than half of them and itself say so, its own voice counting against. A speaker
//! accuses only while it sees most nodes itself. A word may be old, as nobody withdraws that of
//! a dead speaker: so it counts only while the kubelet of the speaker's node renews its Lease,
//! and not if the speaker's node is called lost as well.
//!
//! **Whose clock counts.** Only the own one: a renewal counts from when it was seen to
//! happen. Times in objects are by other clocks and are compared with nothing.
//!
//! **When nothing is done**, however many say so: while fewer than half of the nodes' Leases are
//! seen renewed (it may be the API server or this process that is cut off), while more nodes are lost
//! at once than [`Limit`] allows (then it is probably the network), while the kubelet of the
//! node goes on renewing its Lease, and where Kubernetes has found it not ready itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::view::{LeaseView, NodeView, SpeakerView};
use crate::model::Change;

mod look;

/// So long a loss must stand before anything is done: for the words about other nodes to come in,
/// if it is not one node but the network.
const SETTLE: Duration = Duration::from_millis(500);

/// Pause before something that failed is tried again, and between two looks at an open case.
const AGAIN: Duration = Duration::from_secs(1);

/// How long fewer than half of the Leases may be seen renewed before that is worth an event: it is
/// normal in the first seconds of a leader.
const BLIND: Duration = Duration::from_secs(15);

/// How long after a node's return its kubelet has to undo what was done, before it is undone
/// here. It takes up to 10 s.
const KUBELETS_TURN: Duration = Duration::from_secs(15);

/// How many nodes may be taken for dead at once, in percent of all; but always one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u8);

/// A limit that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--early-node-failure-limit must be from 1 to 49 percent: with half of the nodes lost nobody can tell who is cut off"
)]
pub struct BadLimit;

impl Limit {
    /// That many percent.
    ///
    /// # Errors
    /// Unless from 1 to 49.
    pub fn percent(percent: u8) -> Result<Self, BadLimit> {
        (1..=49)
            .contains(&percent)
            .then_some(Self(percent))
            .ok_or(BadLimit)
    }

    fn of(self, nodes: usize) -> usize {
        (nodes * usize::from(self.0) / 100).max(1)
    }
}

/// What was seen or has come of an action.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Nodes(Change<NodeView>),
    Speakers(Change<SpeakerView>),
    Leases(Change<LeaseView>),
    /// How many pods of a node were marked.
    Marked(String, Result<usize, String>),
    /// How many pods of a node were restored.
    Restored(String, Result<usize, String>),
    /// The time that was asked for has come.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Mark the pods of a dead node.
    Mark(Mark),
    /// Undo that on a node that lives, as far as it has not booted since.
    Restore { node: String, boot: String },
    /// Tell the user, once.
    Tell(Said),
}

/// A dead node, and why it is taken for dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) node: String,
    /// The boot whose pods are meant.
    pub(super) boot: String,
    /// In a few words.
    pub(super) why: String,
}

/// An event on a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) node: String,
    pub(super) uid: String,
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) note: String,
}

/// A node's Lease, with times on the own clock.
#[derive(Clone, Debug)]
struct Beat {
    renewal: Option<String>,
    lasts: Duration,
    /// The last renewal that was seen as it happened.
    seen: Option<Duration>,
    /// The last renewal, also one of which only the result was found after an outage.
    found: Option<Duration>,
}

/// A node that most witnesses have lost.
#[derive(Clone, Debug)]
struct Case {
    since: Duration,
    step: Step,
    /// Pods were marked, or may have been.
    touched: bool,
    /// Nothing is tried before.
    not_before: Duration,
    /// What has been told of it already.
    told: BTreeSet<&'static str>,
    /// Attempts to mark the pods that failed in a row.
    failures: u32,
    /// How many of how many said so last.
    words: (usize, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    Marking,
    Marked,
}

/// A node on which pods may be marked although it lives.
#[derive(Clone, Copy, Debug)]
struct Return {
    since: Duration,
    not_before: Duration,
    busy: bool,
}

/// All that is known.
pub(super) struct Judge {
    limit: Limit,
    nodes: Option<BTreeMap<String, NodeView>>,
    speakers: Option<BTreeMap<String, BTreeSet<String>>>,
    leases: Option<BTreeMap<String, Beat>>,
    cases: BTreeMap<String, Case>,
    returns: BTreeMap<String, Return>,
    /// All was listed, and the nodes there were then have been entered into `returns`.
    begun: bool,
    next_look: Option<Duration>,
}

impl Judge {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            limit,
            nodes: None,
            speakers: None,
            leases: None,
            cases: BTreeMap::new(),
            returns: BTreeMap::new(),
            begun: false,
            next_look: None,
        }
    }

    /// Takes what was seen, and says what to do.
    pub(super) fn apply(&mut self, input: Input, now: Duration) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Nodes(change) => take(&mut self.nodes, change, |n| (n.name.clone(), n)),
            Input::Speakers(change) => take(&mut self.speakers, change, |s| (s.name, s.lost)),
            Input::Leases(change) => {
                self.take_leases(change, now);
                // Fifty a second in a large cluster: they only matter for an open case, which is
                // looked at every second anyway.
                if self.begun {
                    return out;
                }
            }
            Input::Marked(node, result) => self.marked(&node, result, now, &mut out),
            Input::Restored(node, result) => self.restored(&node, result, now, &mut out),
            Input::Tick => {}
        }
        self.look(now, &mut out);
        out
    }

    /// When to come back at the latest.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.next_look
    }

    fn take_leases(&mut self, change: Change<LeaseView>, now: Duration) {
        let beat = |before: Option<&Beat>, view: LeaseView, live: bool| {
            let renewed = before.is_some_and(|before| before.renewal != view.renewal);
            let at = |is: bool, before: Option<Duration>| if is { Some(now) } else { before };
            Beat {
                renewal: view.renewal,
                lasts: view.lasts,
                seen: at(renewed && live, before.and_then(|b| b.seen)),
                found: at(renewed, before.and_then(|b| b.found)),
            }
        };
        match change {
            Change::Listed(views) => {
                let before = self.leases.take().unwrap_or_default();
                let views = views.into_iter();
                let all = views.map(|v| (v.name.clone(), beat(before.get(&v.name), v, false)));
                self.leases = Some(all.collect());
            }
            Change::Applied(view) => {
                let Some(leases) = &mut self.leases else {
                    return;
                };
                let beat = beat(leases.get(&view.name), view.clone(), true);
                leases.insert(view.name, beat);
            }
            Change::Gone(view) => {
                self.leases.as_mut().map(|leases| leases.remove(&view.name));
            }
        }
    }

    fn marked(
        &mut self,
        node: &str,
        result: Result<usize, String>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        // Not of an earlier case of the same node.
        let case = self.cases.get_mut(node);
        let Some(case) = case.filter(|case| case.step == Step::Marking) else {
            return;
        };
        let (words, of) = case.words;
        match result {
            Ok(pods) => {
                (case.step, case.failures) = (Step::Marked, 0);
                // A leader before this one may have done it.
                if pods > 0 {
                    let note = format!(
                        "{words} of {of} witnesses have lost the node; {pods} of its pods marked \
                         not ready, which Kubernetes would do when the node's Lease is over"
                    );
                    self.tell(node, true, "PodsMarkedNotReady", note, out);
                }
            }
            Err(error) => {
                case.step = Step::Open;
                case.not_before = now + AGAIN;
                case.failures += 1;
                // Once is nothing: a pod may have been changed meanwhile.
                if case.failures > 1 && case.told.insert("Failed") {
                    let note = format!("its pods cannot be marked not ready, trying on: {error}");
                    self.tell(node, true, "MarkingPodsFailed", note, out);
                }
            }
        }
    }

    fn restored(
        &mut self,
        node: &str,
        result: Result<usize, String>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        match result {
            Ok(pods) => {
                self.returns.remove(node);
                if pods > 0 {
                    let note = format!(
                        "the node is back and has not booted; {pods} of its pods marked ready \
                         again, as its kubelet had not done so"
                    );
                    self.tell(node, false, "PodsRestored", note, out);
                }
            }
            Err(error) => {
                tracing::warn!(
                    node,
                    error,
                    "cannot look at the pods of a node that is back"
                );
                if let Some(entry) = self.returns.get_mut(node) {
                    entry.busy = false;
                    entry.not_before = now + KUBELETS_TURN;
                }
            }
        }
    }

    fn tell(
        &self,
        node: &str,
        warning: bool,
        reason: &'static str,
        note: String,
        out: &mut Vec<Action>,
    ) {
        let known = self.nodes.as_ref().and_then(|nodes| nodes.get(node));
        if let Some(known) = known {
            out.push(Action::Tell(Said {
                node: node.to_owned(),
                uid: known.uid.clone(),
                warning,
                reason,
                note,
            }));
        }
    }
}

/// Keeps a map of all objects of a kind; none before they were listed.
fn take<T, V>(
    map: &mut Option<BTreeMap<String, V>>,
    change: Change<T>,
    entry: impl Fn(T) -> (String, V),
) {
    match change {
        Change::Listed(all) => *map = Some(all.into_iter().map(entry).collect()),
        Change::Applied(one) => {
            if let Some(map) = map {
                map.extend([entry(one)]);
            }
        }
        Change::Gone(one) => {
            if let Some(map) = map {
                map.remove(&entry(one).0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
