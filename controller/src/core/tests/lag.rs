//! The same miniature, but slow: what the watchers see comes later, each kind in its own order,
//! and so do the writes.

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::model::Revision;

/// What is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Lag {
    /// Per kind, with the number of the user's deed that it tells of, if it does.
    seen: BTreeMap<&'static str, VecDeque<(Option<u64>, Input)>>,
    /// Writes that wait, one per object.
    writes: Vec<Write>,
    /// What the last write of each object was decided upon and what it led to.
    recent: HashMap<Key, (Option<Revision>, Option<Revision>)>,
    deeds: u64,
}

fn kind(input: &Input) -> &'static str {
    match input {
        Input::Services(_) => "services",
        Input::Pools(_) => "pools",
        Input::Vips(_) => "vips",
        Input::Namespaces(_) => "namespaces",
        Input::Nodes(_) => "nodes",
        Input::Speakers(_) => "speakers",
        Input::Recheck(_) => "rechecks",
        Input::Written(_) | Input::Refused(..) | Input::Tick => "news",
    }
}

impl Lag {
    pub(super) fn see(&mut self, input: Input, by_user: bool) {
        self.deeds += u64::from(by_user);
        let deed = by_user.then_some(self.deeds);
        let queue = self.seen.entry(kind(&input)).or_default();
        queue.push_back((deed, input));
    }

    /// What may come next: users' deeds only in their order, as a pool that changes before or
    /// after a Service comes may rightly make a difference.
    fn next(&mut self, choice: usize) -> Option<Input> {
        let all = self.seen.values().flatten();
        let first = all.filter_map(|(deed, _)| *deed).min();
        let ready = self.seen.iter().filter(|(_, queue)| {
            let front = queue.front();
            front.is_some_and(|(deed, _)| deed.is_none() || *deed == first)
        });
        let mut ready: Vec<_> = ready.map(|(kind, _)| *kind).collect();
        // Another look at what failed comes after a pause, when the watchers have told.
        if ready.len() > 1 {
            ready.retain(|kind| *kind != "rechecks");
        }
        let kind = ready.get(choice % ready.len().max(1))?;
        let (_, input) = self.seen.get_mut(kind)?.pop_front()?;
        Some(input)
    }

    /// Writes that are not to happen yet.
    pub(super) fn take_out(&mut self, of: impl Fn(&Write) -> bool) -> Vec<Write> {
        let (taken, left) = std::mem::take(&mut self.writes).into_iter().partition(of);
        self.writes = left;
        taken
    }

    pub(super) fn put_in(&mut self, writes: Vec<Write>) {
        for write in writes {
            let there = self.writes.iter().any(|other| other.key() == write.key());
            if !there {
                self.writes.push(write);
            }
        }
    }

    fn want(&mut self, write: Write) {
        self.writes.retain(|other| other.key() != write.key());
        self.writes.push(write);
    }
}

impl World {
    /// Lets one thing happen, whichever `choice` says; false if nothing is under way any more.
    pub(super) fn step(&mut self, choice: usize) -> bool {
        let Some(mut lag) = self.lag.take() else {
            return false;
        };
        let mut inputs = None;
        if choice.is_multiple_of(2) && !lag.writes.is_empty() {
            let write = lag.writes.remove(choice / 2 % lag.writes.len());
            self.carry_out(&mut lag, write);
        } else {
            inputs = lag.next(choice / 2);
            if inputs.is_none() && !lag.writes.is_empty() {
                let write = lag.writes.remove(0);
                self.carry_out(&mut lag, write);
            } else if inputs.is_none() {
                self.lag = Some(lag);
                return false;
            }
        }
        if let Some(input) = inputs {
            let clock = self.clock();
            for action in self.core.apply(input, clock) {
                match action {
                    Action::Notify(notice) => self.notices.push(notice),
                    Action::Write(write) => lag.want(write),
                }
            }
        }
        self.lag = Some(lag);
        true
    }

    fn carry_out(&mut self, lag: &mut Lag, mut write: Write) {
        let key = write.key();
        let upon = write.seen().cloned();
        let creation = matches!(write, Write::Vip { seen: None, .. });
        if let Some((seen, led_to)) = lag.recent.get(&key)
            && !creation
            && *seen == upon
        {
            write.rebase(led_to.clone());
        }
        if matches!(write, Write::DropVip { seen: None, .. }) {
            return;
        }
        let answer = self.perform(write);
        lag.recent.remove(&key);
        let revision = match &answer {
            Some(Input::Services(Change::Applied(view))) => Some(Revision {
                uid: view.uid.clone(),
                version: view.version.clone(),
            }),
            Some(Input::Vips(Change::Applied(view))) => Some(view.revision.clone()),
            Some(Input::Pools(Change::Applied(view))) => Some(Revision {
                uid: view.uid.clone(),
                version: view.version.clone(),
            }),
            Some(Input::Vips(Change::Gone(_))) => None,
            // Refused, or void as the object has changed.
            answer => {
                let news = answer.clone().unwrap_or(Input::Recheck(key));
                return lag.see(news, false);
            }
        };
        if matches!(answer, Some(Input::Vips(Change::Applied(_)))) {
            lag.see(Input::Written(key.clone()), false);
        }
        lag.recent.insert(key, (upon, revision));
        lag.see(answer.unwrap_or(Input::Tick), false);
    }

    /// Lets happen what is under way, until nothing is.
    pub(super) fn settle(&mut self, mut choices: impl Iterator<Item = usize>) {
        let mut steps = 0;
        while self.step(choices.next().unwrap_or_default()) {
            self.now += 1;
            steps += 1;
            assert!(steps < 20_000, "the controller fights with itself");
        }
    }
}
