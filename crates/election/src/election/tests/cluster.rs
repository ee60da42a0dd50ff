//! Several elections that hear each other, in random order.

use proptest::prelude::*;

use super::*;

/// Elections of all nodes and what each has heard so far.
struct Cluster {
    nodes: Vec<NodeName>,
    elections: Vec<Election>,
    live: Vec<bool>,
    now: Duration,
}

impl Cluster {
    fn new(nodes: usize, vips: u8) -> Self {
        let nodes: Vec<NodeName> = (0..nodes).map(|n| format!("node{n}").into()).collect();
        let candidates = Candidates::equal(nodes.iter().cloned());
        let all: BTreeMap<_, _> = (0..vips)
            .map(|last| (vip(last), candidates.clone()))
            .collect();
        let elections = nodes.iter().map(|node| {
            let mut election = Election::new(node.clone(), SETTLE, ms(0));
            election.set_vips(all.clone());
            election
        });
        Self {
            elections: elections.collect(),
            live: vec![true; nodes.len()],
            now: ms(0),
            nodes,
        }
    }

    /// `to` gets a heartbeat of `from`, if both live.
    fn hear(&mut self, from: usize, to: usize) {
        if from != to && self.live[from] && self.live[to] {
            let claims = self.elections[from].claims();
            self.elections[to].on_claims(&self.nodes[from], 0, 1, &claims);
        }
    }

    fn hear_all(&mut self) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.hear(from, to);
            }
        }
    }

    /// `node` learns who lives.
    fn learn(&mut self, node: usize) {
        let live = self.nodes.iter().zip(&self.live).filter(|(_, live)| **live);
        let live = live.map(|(node, _)| node.clone()).collect();
        self.elections[node].set_live(live);
    }

    fn step(&mut self, node: usize) -> Vec<Action> {
        if self.live[node] {
            self.elections[node].step(self.now)
        } else {
            Vec::new()
        }
    }

    /// Heartbeats to and fro until nothing happens any more.
    fn calm(&mut self) -> usize {
        for round in 0..100 {
            self.now += ms(100);
            self.hear_all();
            let acted: usize = (0..self.nodes.len())
                .map(|node| {
                    self.learn(node);
                    self.step(node).len()
                })
                .sum();
            // Longer than anybody waits for another.
            if acted == 0 && round > 12 {
                return round;
            }
        }
        panic!("never calm");
    }

    fn owners(&self, vip: IpAddr) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|node| self.live[*node])
            .filter(|node| self.elections[*node].claims().iter().any(|c| c.vip == vip))
            .collect()
    }

    fn loads(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|node| self.live[*node])
            .map(|node| self.elections[node].claims().len())
            .collect()
    }

    fn kill(&mut self, node: usize) {
        self.live[node] = false;
    }

    /// The node is back, without what it knew.
    fn boot(&mut self, node: usize) {
        let vips = self.elections[node].vips.clone().unwrap();
        self.elections[node] = Election::new(self.nodes[node].clone(), SETTLE, self.now);
        self.elections[node].set_vips(vips);
        self.live[node] = true;
    }
}

fn even(loads: &[usize]) -> bool {
    loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1
}

#[test]
fn all_compute_the_same_plan_so_nobody_collides() {
    let mut cluster = Cluster::new(5, 101);
    cluster.hear_all();
    let taken: usize = (0..5)
        .map(|node| {
            cluster.learn(node);
            cluster.step(node).len()
        })
        .sum();
    assert_eq!(taken, 101);
    assert!(even(&cluster.loads()), "{:?}", cluster.loads());
}

#[test]
fn survivors_share_the_dead_nodes_vips_evenly_in_whatever_order_they_learn() {
    for first in 1..5 {
        let mut cluster = Cluster::new(5, 100);
        cluster.calm();
        cluster.kill(0);
        // The first one learns, takes its share and is heard before the next learns.
        let mut taken = 0;
        for turn in 0..4 {
            let node = 1 + (first + turn) % 4;
            cluster.learn(node);
            taken += cluster.step(node).len();
            cluster.hear_all();
        }
        assert_eq!(taken, 20);
        assert_eq!(cluster.loads(), [25; 4]);
    }
}

#[test]
fn nobody_falls_back_to_a_node_that_returns() {
    let mut cluster = Cluster::new(3, 30);
    cluster.calm();
    cluster.kill(0);
    cluster.calm();
    cluster.boot(0);
    cluster.calm();
    assert_eq!(cluster.loads(), [0, 15, 15]);
}

#[derive(Debug, Clone)]
enum Turn {
    Hear(usize, usize),
    Learn(usize),
    Step(usize),
    Kill(usize),
    Boot(usize),
    Wait(u64),
}

fn any_turn() -> impl Strategy<Value = Turn> {
    let node = 0..4usize;
    prop_oneof![
        4 => (node.clone(), node.clone()).prop_map(|(from, to)| Turn::Hear(from, to)),
        2 => node.clone().prop_map(Turn::Learn),
        3 => node.clone().prop_map(Turn::Step),
        1 => node.clone().prop_map(Turn::Kill),
        1 => node.prop_map(Turn::Boot),
        1 => (1u64..400).prop_map(Turn::Wait),
    ]
}

proptest! {
    /// Whatever order news come in: once all hear each other, each VIP has one owner,
    /// all name the same, epochs never fall, and no claim is made of an epoch already used by another.
    #[test]
    fn any_history_ends_with_one_owner_each(turns in proptest::collection::vec(any_turn(), 0..120)) {
        let mut cluster = Cluster::new(4, 9);
        let mut last = BTreeMap::<(usize, IpAddr), u64>::new();
        for turn in turns {
            match turn {
                Turn::Hear(from, to) => cluster.hear(from, to),
                Turn::Learn(node) => cluster.learn(node),
                Turn::Wait(time) => cluster.now += ms(time),
                Turn::Kill(node) => cluster.kill(node),
                Turn::Boot(node) if !cluster.live[node] => {
                    cluster.boot(node);
                    last.retain(|(who, _), _| *who != node);
                }
                Turn::Boot(_) => {}
                Turn::Step(node) => {
                    for action in cluster.step(node) {
                        if let Action::Take { vip, epoch, .. } = action {
                            let before = last.insert((node, vip), epoch);
                            prop_assert!(before < Some(epoch), "{before:?} {epoch}");
                        }
                    }
                }
            }
        }
        if cluster.live.iter().all(|live| !live) {
            cluster.boot(0);
        }
        cluster.calm();
        for last in 0..9 {
            let owners = cluster.owners(vip(last));
            prop_assert_eq!(owners.len(), 1, "{}: {:?}", last, owners);
            for (election, live) in cluster.elections.iter().zip(&cluster.live) {
                if *live {
                    let named = election.owner(&vip(last)).map(|(node, _)| node);
                    prop_assert_eq!(named.as_ref(), Some(&cluster.nodes[owners[0]]));
                }
            }
        }
        // And it stays so.
        let loads = cluster.loads();
        cluster.calm();
        prop_assert_eq!(cluster.loads(), loads);
    }
}
