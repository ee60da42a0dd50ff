//! One look at all that is known: which nodes are lost, and what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lightship_crds::{WITNESSES, witnesses};

use super::{AGAIN, Action, BLIND, Beat, Case, Judge, KUBELETS_TURN, Mark, Return, SETTLE, Step};
use crate::node_failure::view::NodeView;

/// What holds a mark back.
struct Hold {
    /// In one word, by which it is told once.
    key: &'static str,
    /// In a sentence; none if it is not worth one.
    note: Option<String>,
}

impl Hold {
    fn quiet(key: &'static str) -> Self {
        Hold { key, note: None }
    }
}

impl Judge {
    /// Does all that is due.
    pub(super) fn look(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.leases.is_none() || self.nodes.is_none() || self.speakers.is_none() {
            return;
        }
        let (Some(nodes), Some(speakers)) = (self.nodes.take(), self.speakers.take()) else {
            return;
        };
        self.begin(&nodes, now);
        let lost = self.lost(&nodes, &speakers, now);
        self.keep_cases(&nodes, &lost, now);
        let sighted = self.sighted(&speakers, now);
        // A word that does not count yet may count when more Leases have been seen.
        let accused = speakers.values().any(|lost| !lost.is_empty());
        (self.nodes, self.speakers) = (Some(nodes), Some(speakers));
        self.act(sighted, now, out);
        self.undo(now, out);
        let open = self.cases.values().map(|case| case.since + SETTLE);
        let soon = open.filter(|at| *at > now).min();
        let later = now + AGAIN;
        let idle = !accused && self.cases.is_empty() && self.returns.is_empty();
        self.next_look = (!idle).then(|| soon.map_or(later, |at| at.min(later)));
    }

    /// A leader before this one may have marked pods of any node: each is looked at once, one
    /// after another.
    fn begin(&mut self, nodes: &BTreeMap<String, NodeView>, now: Duration) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        for (name, place) in nodes.keys().zip(0u32..) {
            let entry = Return {
                since: now,
                not_before: now + KUBELETS_TURN + AGAIN * place,
                busy: false,
            };
            self.returns.insert(name.clone(), entry);
        }
    }

    /// The nodes that most of their witnesses have lost, with how many of how many say so.
    fn lost(
        &self,
        nodes: &BTreeMap<String, NodeView>,
        speakers: &BTreeMap<String, BTreeSet<String>>,
        now: Duration,
    ) -> BTreeMap<String, (usize, usize)> {
        let words = |trusted: &dyn Fn(&str) -> bool| {
            let mut words: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for (name, lost) in speakers {
                if nodes.contains_key(name) && self.renews(name, now) && trusted(name) {
                    for node in lost {
                        words.entry(node).or_default().insert(name);
                    }
                }
            }
            let lost = words.into_iter().filter_map(|(node, accusers)| {
                if !nodes.contains_key(node) || !speakers.contains_key(node) {
                    return None;
                }
                let all = speakers.keys().map(String::as_str);
                let witnesses = witnesses(node, all, WITNESSES);
                let count = witnesses.iter().filter(|w| accusers.contains(*w)).count();
                let most = count * 2 > witnesses.len() + 1;
                most.then(|| (node.to_owned(), (count, witnesses.len())))
            });
            lost.collect::<BTreeMap<_, _>>()
        };
        let accused = words(&|_| true);
        if accused.is_empty() {
            return accused;
        }
        words(&|name| !accused.contains_key(name))
    }

    /// Whether the kubelet of a node has been seen to renew its Lease within the Lease's time.
    fn renews(&self, node: &str, now: Duration) -> bool {
        let beat = self.leases.as_ref().and_then(|leases| leases.get(node));
        beat.is_some_and(|beat| beat.seen.is_some_and(|at| now < at + beat.lasts))
    }

    /// Whether most nodes with a speaker are seen to renew their Leases.
    fn sighted(&self, speakers: &BTreeMap<String, BTreeSet<String>>, now: Duration) -> bool {
        let renewing = speakers.keys().filter(|name| self.renews(name, now));
        renewing.count() * 2 > speakers.len()
    }

    fn keep_cases(
        &mut self,
        nodes: &BTreeMap<String, NodeView>,
        lost: &BTreeMap<String, (usize, usize)>,
        now: Duration,
    ) {
        let back: Vec<String> = self
            .cases
            .keys()
            .filter(|n| !lost.contains_key(*n))
            .cloned()
            .collect();
        for name in back {
            if self.cases.remove(&name).is_some_and(|case| case.touched) {
                let entry = Return {
                    since: now,
                    not_before: now + KUBELETS_TURN,
                    busy: false,
                };
                self.returns.insert(name, entry);
            }
        }
        for (name, words) in lost {
            let case = self.cases.entry(name.clone()).or_insert(Case {
                since: now,
                step: Step::Open,
                touched: false,
                not_before: now + SETTLE,
                told: BTreeSet::new(),
                failures: 0,
                words: *words,
            });
            case.words = *words;
        }
        self.returns.retain(|name, _| nodes.contains_key(name));
    }

    fn act(&mut self, sighted: bool, now: Duration, out: &mut Vec<Action>) {
        let Some(nodes) = &self.nodes else { return };
        // Those that Kubernetes has found out itself are its own affair.
        let ready = |name: &String| nodes.get(name).filter(|node| node.ready);
        let fresh = self
            .cases
            .keys()
            .filter(|name| ready(name).is_some())
            .count();
        let limit = self.limit.of(nodes.len());
        let mut told = Vec::new();
        for (name, case) in &mut self.cases {
            let beat = self.leases.as_ref().and_then(|leases| leases.get(name));
            let alive = beat.and_then(|beat| renewed_since(beat, case.since, now));
            if alive.is_some() && case.step == Step::Marked {
                // Its kubelet lives and undoes it. Should it die after all, it is a new case.
                case.step = Step::Open;
            }
            let Some(node) = ready(name).filter(|_| case.step == Step::Open) else {
                continue;
            };
            if now < case.not_before {
                continue;
            }
            let hold = if beat.is_none() {
                let note = "its kubelet keeps no Lease, by which it could be told whether it lives";
                Some(Hold {
                    key: "NoLease",
                    note: Some(note.into()),
                })
            } else if alive.is_some() {
                let note = "its kubelet renewed its Lease after its speaker and kernel fell silent \
                    on the LAN";
                Some(Hold {
                    key: "LeaseRenewed",
                    note: Some(note.into()),
                })
            } else if !sighted {
                let note = "fewer than half of the nodes are seen to renew their Leases";
                let long = now >= case.since + BLIND;
                if long {
                    Some(Hold {
                        key: "Blind",
                        note: Some(note.into()),
                    })
                } else {
                    Some(Hold::quiet("Blind"))
                }
            } else if fresh > limit {
                let note = format!(
                    "{fresh} nodes are lost at once and at most {limit} may be: this is more likely \
                     the network; see --early-node-failure-limit"
                );
                Some(Hold {
                    key: "TooMany",
                    note: Some(note),
                })
            } else {
                None
            };
            let Some(hold) = hold else {
                (case.step, case.touched) = (Step::Marking, true);
                let (words, of) = case.words;
                out.push(Action::Mark(Mark {
                    node: name.clone(),
                    boot: node.boot.clone(),
                    why: format!("{words} of {of} witnesses have lost the node"),
                }));
                continue;
            };
            if let Some(note) = hold.note
                && case.told.insert(hold.key)
            {
                let (words, of) = case.words;
                let but = if case.touched {
                    "but no more of its pods are marked"
                } else {
                    "but its pods are left as they are"
                };
                let note = format!("{words} of {of} witnesses have lost the node, {but}: {note}");
                told.push((name.clone(), note));
            }
        }
        for (name, note) in told {
            self.tell(&name, true, "NodeFailureHeldBack", note, out);
        }
    }

    /// Looks after nodes that are back, once their kubelets have had their turn.
    fn undo(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(nodes) = &self.nodes else { return };
        for (name, entry) in &mut self.returns {
            let beat = self.leases.as_ref().and_then(|leases| leases.get(name));
            let lives = beat.is_some_and(|beat| beat.seen.is_some_and(|at| at >= entry.since));
            let node = nodes.get(name).filter(|node| node.ready);
            let due = !entry.busy && now >= entry.not_before && !self.cases.contains_key(name);
            if let (true, true, Some(node)) = (due, lives, node) {
                entry.busy = true;
                out.push(Action::Restore {
                    node: name.clone(),
                    boot: node.boot.clone(),
                });
            }
        }
    }
}

/// When the Lease was renewed, if that was after the loss and so lately that the next
/// renewal may not have been due: kubelets renew after a quarter of the Lease's time
/// (kubernetes/pkg/kubelet/kubelet.go, `nodeLeaseRenewIntervalFraction`).
fn renewed_since(beat: &Beat, since: Duration, now: Duration) -> Option<Duration> {
    let next = beat.lasts * 3 / 10;
    beat.found.filter(|at| *at >= since && now < *at + next)
}
