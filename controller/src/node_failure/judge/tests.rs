//! Histories of made-up clusters, second by second. Nodes are numbers; all kubelets renew their
//! Leases every ten seconds unless told otherwise.

use super::*;

mod property;

const S: Duration = Duration::from_secs(1);
const LASTS: Duration = Duration::from_secs(40);

fn name(n: usize) -> String {
    format!("node{n}")
}

struct Cluster {
    judge: Judge,
    now: Duration,
    size: usize,
    /// Nodes whose kubelets do not renew.
    silent: BTreeSet<usize>,
    renewals: u32,
    actions: Vec<Action>,
}

impl Cluster {
    /// All is listed, and so far nothing else is known.
    fn fresh(size: usize) -> Self {
        Self::listed(size, [0, 1, 2])
    }

    /// The same with the kinds listed in that order: Nodes 0, Speakers 1, Leases 2.
    fn listed(size: usize, order: [u8; 3]) -> Self {
        let mut cluster = Cluster {
            judge: Judge::new(Limit::percent(20).unwrap()),
            now: Duration::ZERO,
            size,
            silent: BTreeSet::new(),
            renewals: 0,
            actions: Vec::new(),
        };
        for kind in order {
            let all = 0..size;
            cluster.apply(match kind {
                0 => Input::Nodes(Change::Listed(all.map(|n| node(n, true)).collect())),
                1 => Input::Speakers(Change::Listed(all.map(|n| speaker(n, &[])).collect())),
                _ => Input::Leases(Change::Listed(all.map(|n| lease(n, 0)).collect())),
            });
        }
        cluster
    }

    /// It has been watched for a minute, and nothing happened.
    fn calm(size: usize) -> Self {
        let mut cluster = Self::fresh(size);
        cluster.run(60 * S);
        cluster.take_marks();
        cluster
    }

    fn apply(&mut self, input: Input) {
        let actions = self.judge.apply(input, self.now);
        self.actions.extend(actions);
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            let due = self.now.as_millis().is_multiple_of(10_000);
            if due {
                self.renewals += 1;
                let alive: Vec<usize> = (0..self.size)
                    .filter(|n| !self.silent.contains(n))
                    .collect();
                for n in alive {
                    self.renew(n);
                }
            }
            if self.judge.deadline().is_some_and(|at| at <= self.now) {
                self.apply(Input::Tick);
            }
            self.now += Duration::from_millis(100);
        }
    }

    fn renew(&mut self, n: usize) {
        self.renewals += 1;
        let lease = lease(n, self.renewals);
        self.apply(Input::Leases(Change::Applied(lease)));
    }

    fn says(&mut self, by: usize, lost: &[usize]) {
        self.apply(Input::Speakers(Change::Applied(speaker(by, lost))));
    }

    /// A node dies, and all others say so.
    fn dies(&mut self, dead: usize) {
        self.silent.insert(dead);
        for n in (0..self.size).filter(|n| *n != dead) {
            self.says(n, &[dead]);
        }
    }

    /// The nodes that were to be marked, each of which then was.
    fn take_marks(&mut self) -> Vec<String> {
        let mut marks = Vec::new();
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Mark(mark) => {
                    self.apply(Input::Marked(mark.node.clone(), Ok(3)));
                    marks.push(mark.node);
                }
                Action::Restore { node, .. } => self.apply(Input::Restored(node, Ok(0))),
                Action::Tell(_) => {}
            }
        }
        marks
    }

    fn reasons(&self) -> Vec<&'static str> {
        let told = self.actions.iter().filter_map(|action| match action {
            Action::Tell(said) => Some(said.reason),
            _ => None,
        });
        told.collect()
    }

    fn notes(&self) -> String {
        let told = self.actions.iter().filter_map(|action| match action {
            Action::Tell(said) => Some(&*said.note),
            _ => None,
        });
        told.collect::<Vec<_>>().join("\n")
    }
}

fn node(n: usize, ready: bool) -> NodeView {
    NodeView {
        name: name(n),
        uid: format!("uid{n}"),
        ready,
        boot: format!("boot{n}"),
    }
}

fn speaker(n: usize, lost: &[usize]) -> SpeakerView {
    SpeakerView {
        name: name(n),
        lost: lost.iter().map(|n| name(*n)).collect(),
    }
}

fn lease(n: usize, renewal: u32) -> LeaseView {
    LeaseView {
        name: name(n),
        renewal: Some(renewal.to_string()),
        lasts: LASTS,
    }
}

#[test]
fn a_dead_node_is_marked_within_a_second_and_once() {
    let mut cluster = Cluster::calm(3);
    cluster.dies(2);
    cluster.run(S);
    assert_eq!(cluster.take_marks(), [name(2)]);
    assert_eq!(cluster.reasons(), ["PodsMarkedNotReady"]);
    assert!(
        cluster.notes().contains("2 of 2 witnesses"),
        "{}",
        cluster.notes()
    );
    cluster.run(100 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
}

#[test]
fn the_order_in_which_kinds_are_listed_is_no_matter() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut cluster = Cluster::listed(3, order);
        cluster.run(20 * S);
        cluster.dies(2);
        cluster.run(S);
        assert_eq!(cluster.take_marks(), [name(2)], "{order:?}");
    }
}

#[test]
fn fewer_than_most_witnesses_are_not_enough() {
    for (size, enough) in [
        (2, None),
        (3, Some(2)),
        (4, Some(3)),
        (5, Some(3)),
        (9, Some(5)),
    ] {
        let mut cluster = Cluster::calm(size);
        cluster.silent.insert(0);
        for by in 1..size {
            assert_eq!(cluster.take_marks(), Vec::<String>::new(), "{size}: {by}");
            cluster.says(by, &[0]);
            cluster.run(2 * S);
            if Some(by) == enough {
                break;
            }
        }
        let expected: Vec<String> = enough.map(|_| name(0)).into_iter().collect();
        assert_eq!(cluster.take_marks(), expected, "{size}");
    }
}

#[test]
fn of_many_only_the_witnesses_count() {
    let mut cluster = Cluster::calm(100);
    let names: Vec<String> = (0..100).map(name).collect();
    let few = lightship_crds::witnesses("node0", names.iter().map(String::as_str), 8);
    let is = |n: &usize| few.contains(&&*name(*n));
    cluster.silent.insert(0);
    for n in (1..100).filter(|n| !is(n)) {
        cluster.says(n, &[0]);
    }
    cluster.run(3 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
    for n in (1..100).filter(is).take(5) {
        cluster.says(n, &[0]);
    }
    cluster.run(S);
    assert_eq!(cluster.take_marks(), [name(0)]);
}

#[test]
fn a_node_that_is_heard_again_at_once_is_left_alone() {
    let mut cluster = Cluster::calm(3);
    cluster.dies(2);
    cluster.run(Duration::from_millis(300));
    cluster.says(0, &[]);
    cluster.run(60 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
}

#[test]
fn the_word_of_the_dead_does_not_count() {
    // Node 1 is dead and had said before that it lost node 2; node 0 has just lost node 2 and
    // all others do not see anything wrong with it.
    let mut cluster = Cluster::calm(5);
    cluster.says(1, &[2]);
    cluster.silent.insert(1);
    cluster.run(41 * S);
    cluster.says(0, &[2]);
    cluster.says(3, &[2]);
    cluster.silent.insert(2);
    cluster.run(S);
    assert_eq!(
        cluster.take_marks(),
        Vec::<String>::new(),
        "its Lease is over"
    );

    let mut cluster = Cluster::calm(5);
    cluster.says(1, &[2]);
    for (by, lost) in [(0, [1, 2]), (3, [1, 2]), (4, [1, 1])] {
        cluster.says(by, &lost);
    }
    cluster.silent.extend([1, 2]);
    cluster.run(S);
    assert_eq!(
        cluster.take_marks(),
        [name(1)],
        "it is lost itself, so node 2 has two words"
    );
}

#[test]
fn a_node_whose_kubelet_renews_its_lease_is_left_alone_for_as_long() {
    let mut cluster = Cluster::calm(3);
    cluster.dies(2);
    cluster.silent.remove(&2);
    cluster.run(Duration::from_millis(200));
    cluster.renew(2);
    cluster.run(3 * S);
    assert_eq!(cluster.reasons(), ["NodeFailureHeldBack"]);
    assert!(
        cluster.notes().contains("renewed its Lease"),
        "{}",
        cluster.notes()
    );
    cluster.run(100 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
    // The node dies indeed: marked when the next renewal is overdue.
    cluster.silent.insert(2);
    cluster.run(11 * S);
    let early = cluster.take_marks();
    cluster.run(3 * S);
    let all: Vec<String> = early.into_iter().chain(cluster.take_marks()).collect();
    assert_eq!(all, [name(2)]);
}

#[test]
fn a_renewal_after_the_mark_opens_the_case_again_and_marks_nothing_meanwhile() {
    let mut cluster = Cluster::calm(3);
    cluster.dies(2);
    cluster.run(S);
    assert_eq!(cluster.take_marks(), [name(2)]);
    cluster.actions.clear();
    cluster.silent.remove(&2);
    cluster.run(60 * S);
    assert_eq!(cluster.reasons(), ["NodeFailureHeldBack"]);
    assert!(
        cluster.notes().contains("no more of its pods"),
        "{}",
        cluster.notes()
    );
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
}

#[test]
fn many_nodes_at_once_are_the_network() {
    let mut cluster = Cluster::calm(9);
    cluster.silent.extend([7, 8]);
    for n in 0..7 {
        cluster.says(n, &[7, 8]);
    }
    cluster.run(5 * S);
    assert_eq!(cluster.reasons(), ["NodeFailureHeldBack"; 2]);
    assert!(
        cluster.notes().contains("2 nodes are lost at once"),
        "{}",
        cluster.notes()
    );
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
    // Kubernetes has found out about one of them.
    cluster.apply(Input::Nodes(Change::Applied(node(7, false))));
    cluster.run(2 * S);
    assert_eq!(cluster.take_marks(), [name(8)]);
}

#[test]
fn in_a_larger_cluster_the_share_counts() {
    let mut cluster = Cluster::calm(10);
    cluster.silent.extend([8, 9]);
    for n in 0..8 {
        cluster.says(n, &[8, 9]);
    }
    cluster.run(S);
    assert_eq!(cluster.take_marks(), [name(8), name(9)], "20 percent of 10");
}

#[test]
fn what_kubernetes_knows_needs_no_early_word() {
    let mut cluster = Cluster::calm(3);
    cluster.apply(Input::Nodes(Change::Applied(node(2, false))));
    cluster.dies(2);
    cluster.run(60 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
    assert_eq!(cluster.reasons(), Vec::<&str>::new());
}

#[test]
fn a_new_leader_believes_nobody_before_it_has_seen_leases_renewed() {
    let mut cluster = Cluster::fresh(3);
    cluster.now = S;
    cluster.dies(2);
    cluster.run(8 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
    cluster.run(4 * S);
    assert_eq!(cluster.take_marks(), [name(2)]);
}

#[test]
fn who_sees_no_leases_renewed_does_nothing_and_says_so() {
    let mut cluster = Cluster::calm(5);
    cluster.silent.extend(0..5);
    cluster.run(41 * S);
    for n in 0..4 {
        cluster.says(n, &[4]);
    }
    cluster.run(20 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
    // Two of five speakers' kubelets are seen again: their words are two of the three needed.
    cluster.silent = BTreeSet::from([2, 3, 4]);
    cluster.run(30 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
}

#[test]
fn leases_found_renewed_after_an_outage_prove_nothing_about_speakers() {
    let mut cluster = Cluster::calm(3);
    cluster.silent.extend(0..3);
    cluster.run(50 * S);
    let relisted = (0..3).map(|n| lease(n, 999)).collect();
    cluster.apply(Input::Leases(Change::Listed(relisted)));
    cluster.says(0, &[2]);
    cluster.says(1, &[2]);
    cluster.run(30 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
    cluster.silent = BTreeSet::from([2]);
    cluster.run(12 * S);
    assert_eq!(cluster.take_marks(), [name(2)]);
}

#[test]
fn a_node_without_a_lease_or_a_speaker_or_a_node_object_is_left_alone() {
    let mut cluster = Cluster::calm(3);
    cluster.apply(Input::Leases(Change::Gone(lease(2, 0))));
    cluster.dies(2);
    cluster.run(3 * S);
    assert_eq!(cluster.reasons(), ["NodeFailureHeldBack"]);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());

    let mut cluster = Cluster::calm(3);
    cluster.apply(Input::Speakers(Change::Gone(speaker(2, &[]))));
    cluster.dies(2);
    cluster.run(3 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());

    let mut cluster = Cluster::calm(3);
    cluster.apply(Input::Nodes(Change::Gone(node(2, true))));
    cluster.dies(2);
    cluster.run(3 * S);
    assert_eq!(cluster.take_marks(), Vec::<String>::new());
}

#[test]
fn what_failed_is_tried_again_and_told_once_if_it_fails_again() {
    let mut cluster = Cluster::calm(3);
    cluster.dies(2);
    let mut tries = 0;
    for _ in 0..50 {
        cluster.run(Duration::from_millis(100));
        let marks = cluster
            .actions
            .iter()
            .filter(|a| matches!(a, Action::Mark(_)));
        let marks = marks.count();
        if marks > tries {
            tries = marks;
            cluster.apply(Input::Marked(name(2), Err("no answer".into())));
            let told = usize::from(tries > 1);
            assert_eq!(cluster.reasons(), vec!["MarkingPodsFailed"; told]);
        }
    }
    assert!((3..=6).contains(&tries), "{tries}");
}

#[test]
fn what_a_kubelet_has_not_undone_is_undone_after_its_turn() {
    let mut cluster = Cluster::calm(3);
    cluster.dies(2);
    cluster.run(S);
    assert_eq!(cluster.take_marks(), [name(2)]);
    cluster.run(5 * S);
    cluster.actions.clear();
    for n in 0..2 {
        cluster.says(n, &[]);
    }
    let heard = cluster.now;
    // Heard by the speakers, but its kubelet is not there yet.
    cluster.run(30 * S);
    assert_eq!(cluster.actions, []);
    cluster.silent.clear();
    cluster.run(15 * S);
    let restore = Action::Restore {
        node: name(2),
        boot: "boot2".into(),
    };
    assert_eq!(cluster.actions, [restore]);
    assert!(cluster.now - heard > KUBELETS_TURN);
    cluster.apply(Input::Restored(name(2), Ok(2)));
    assert_eq!(cluster.reasons(), ["PodsRestored"]);
    cluster.actions.clear();
    cluster.run(60 * S);
    assert_eq!(cluster.actions, []);
}

#[test]
fn a_new_leader_looks_at_each_node_once_and_not_at_all_at_once() {
    let mut cluster = Cluster::fresh(20);
    cluster.run(KUBELETS_TURN);
    assert_eq!(cluster.actions, []);
    let mut looks = BTreeSet::new();
    for _ in 0..60 {
        cluster.run(S);
        let now: Vec<String> = std::mem::take(&mut cluster.actions)
            .into_iter()
            .filter_map(|action| match action {
                Action::Restore { node, .. } => Some(node),
                _ => None,
            })
            .collect();
        assert!(now.len() <= 2, "{now:?}");
        for node in now {
            cluster.apply(Input::Restored(node.clone(), Ok(0)));
            assert!(looks.insert(node));
        }
    }
    assert_eq!(looks.len(), 20);
    assert_eq!(cluster.judge.deadline(), None, "nothing is open any more");
}

#[test]
fn limits_that_are_none_are_refused() {
    assert_eq!(Limit::percent(0), Err(BadLimit));
    assert_eq!(Limit::percent(50), Err(BadLimit));
    let limit = Limit::percent(20).unwrap();
    assert_eq!([1, 9, 10, 500].map(|n| limit.of(n)), [1, 1, 2, 100]);
}
