use std::sync::Mutex;

use lightship_ipam::ServiceId;

use super::*;

/// Remembers what arrived; objects may be slow or refuse a number of times.
#[derive(Default)]
struct Scripted {
    arrived: Mutex<Vec<(String, Instant)>>,
    slow: HashMap<String, Duration>,
    refuse: Mutex<HashMap<String, u32>>,
    /// The pause asked for with it.
    asked: Option<Duration>,
    /// How the next request of an object ends.
    changed: Mutex<HashMap<String, Outcome>>,
}

impl Sink for Arc<Scripted> {
    async fn write(&self, write: &Write) -> Result<Outcome, Failure> {
        let name = match write {
            Write::DropVip { name, .. } => name.clone(),
            Write::ServiceStatus {
                service, addresses, ..
            } => format!(
                "{service}={:?}",
                addresses.iter().flatten().collect::<Vec<_>>()
            ),
            other => format!("{other:?}"),
        };
        let object = name.split('=').next().unwrap_or_default().to_owned();
        self.arrived.lock().unwrap().push((name, Instant::now()));
        if let Some(delay) = self.slow.get(&object) {
            sleep(*delay).await;
        }
        match self.refuse.lock().unwrap().get_mut(&object) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(Failure {
                    reason: "refused".into(),
                    asked: self.asked,
                    busy: false,
                })
            }
            _ => {
                let changed = self.changed.lock().unwrap().remove(&object);
                Ok(changed.unwrap_or(Outcome::Written(None)))
            }
        }
    }
}

fn revision(version: u32) -> Revision {
    Revision {
        uid: "u".into(),
        version: version.to_string(),
    }
}

/// Decided upon this version of the Service.
fn ingress_at(version: u32, last: u8) -> Write {
    let mut write = ingress(last);
    write.rebase(Some(revision(version)));
    write
}

fn ingress(last: u8) -> Write {
    Write::ServiceStatus {
        service: ServiceId::new("n", "s"),
        seen: revision(1),
        addresses: Some(vec![[192, 0, 2, last].into()]),
        told: None,
    }
}

fn drop_vip(name: &str) -> Write {
    Write::DropVip {
        name: name.into(),
        seen: None,
    }
}

async fn settle(writer: &mut Writer<Arc<Scripted>>) {
    while !writer.idle() {
        writer.step().await;
    }
}

fn names(sink: &Scripted) -> Vec<String> {
    sink.arrived
        .lock()
        .unwrap()
        .iter()
        .map(|(name, _)| name.clone())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_slow_object_delays_no_other() {
    let sink = Arc::new(Scripted {
        slow: [("slow".to_owned(), Duration::from_secs(5))].into(),
        ..Scripted::default()
    });
    let mut writer = Writer::new(sink.clone(), Rate::default());
    let start = Instant::now();
    writer.submit(drop_vip("slow"));
    for n in 0..50 {
        writer.submit(drop_vip(&n.to_string()));
    }
    while writer.slots.len() > 1 {
        writer.step().await;
    }
    assert!(start.elapsed() < Duration::from_millis(1));
    settle(&mut writer).await;
    assert!(start.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_latest_state_wins_and_requests_do_not_overlap() {
    let sink = Arc::new(Scripted {
        slow: [("n/s".to_owned(), Duration::from_millis(100))].into(),
        ..Scripted::default()
    });
    let mut writer = Writer::new(sink.clone(), Rate::default());
    for last in 1..=5 {
        writer.submit(ingress(last));
    }
    settle(&mut writer).await;
    assert_eq!(names(&sink), ["n/s=[192.0.2.1]", "n/s=[192.0.2.5]"]);
    let arrived = sink.arrived.lock().unwrap();
    assert!(arrived[1].1 - arrived[0].1 >= Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_with_growing_pauses() {
    let sink = Arc::new(Scripted {
        refuse: Mutex::new([("a".to_owned(), 4)].into()),
        ..Scripted::default()
    });
    let mut writer = Writer::new(sink.clone(), Rate::default());
    writer.submit(drop_vip("a"));
    settle(&mut writer).await;
    let arrived = sink.arrived.lock().unwrap();
    let pauses: Vec<_> = arrived
        .windows(2)
        .map(|pair| pair[1].1 - pair[0].1)
        .collect();
    assert_eq!(pauses.len(), 4);
    for (n, pause) in pauses.iter().enumerate() {
        let full = Duration::from_millis(100 << n);
        assert!(
            *pause >= full / 2 && *pause <= full + Duration::from_millis(2),
            "{pauses:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_state_does_not_wait_for_the_pause() {
    let sink = Arc::new(Scripted {
        refuse: Mutex::new([("n/s".to_owned(), 8)].into()),
        ..Scripted::default()
    });
    let mut writer = Writer::new(sink.clone(), Rate::default());
    writer.submit(ingress(1));
    let pausing = |writer: &Writer<_>| {
        let slot = writer.slots.values().next();
        matches!(slot, Some(Slot::Pausing { attempt, .. }) if attempt.number == 8)
    };
    while !pausing(&writer) {
        writer.step().await;
    }
    let before = Instant::now();
    writer.submit(ingress(2));
    settle(&mut writer).await;
    assert!(before.elapsed() < Duration::from_millis(1));
    assert_eq!(names(&sink).last().unwrap(), "n/s=[192.0.2.2]");
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_api_server_asks_for_holds_for_every_state_and_has_an_end() {
    for (asked, bounds) in [(4, 4..7), (3600, 30..46)] {
        let sink = Arc::new(Scripted {
            refuse: Mutex::new([("n/s".to_owned(), 1)].into()),
            asked: Some(Duration::from_secs(asked)),
            ..Scripted::default()
        });
        let mut writer = Writer::new(sink.clone(), Rate::default());
        let start = Instant::now();
        writer.submit(ingress(1));
        // While it is under way, and while it pauses.
        writer.submit(ingress(2));
        assert_eq!(writer.step().await, None);
        writer.submit(ingress(3));
        writer.submit(drop_vip("other"));
        settle(&mut writer).await;
        let arrived = sink.arrived.lock().unwrap();
        let (names, moments): (Vec<_>, Vec<_>) = arrived.iter().cloned().unzip();
        assert_eq!(names, ["n/s=[192.0.2.1]", "other", "n/s=[192.0.2.3]"]);
        assert!(moments[1] - start < Duration::from_millis(1));
        assert!(
            bounds.contains(&(moments[2] - start).as_secs()),
            "{moments:?}"
        );
    }
}

/// Too busy for anything until a moment.
struct Outage {
    until: Instant,
    attempts: Mutex<u32>,
}

impl Sink for Arc<Outage> {
    async fn write(&self, _: &Write) -> Result<Outcome, Failure> {
        *self.attempts.lock().unwrap() += 1;
        sleep(Duration::from_millis(2)).await;
        if Instant::now() >= self.until {
            return Ok(Outcome::Written(None));
        }
        Err(Failure {
            reason: "busy".into(),
            asked: None,
            busy: true,
        })
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_for_by_all_together_and_over_within_seconds() {
    let over = Instant::now() + Duration::from_secs(120);
    let sink = Arc::new(Outage {
        until: over,
        attempts: Mutex::default(),
    });
    let mut writer = Writer::new(sink.clone(), Rate::default());
    for n in 0..3000 {
        writer.submit(drop_vip(&n.to_string()));
    }
    while Instant::now() < over {
        writer.step().await;
    }
    let attempts = *sink.attempts.lock().unwrap();
    // At most 64 each time that the gate opens, and each of 3000 objects would have asked 40 times.
    assert!((64..10_000).contains(&attempts), "{attempts} attempts");
    while !writer.idle() {
        writer.step().await;
    }
    let late = over.elapsed();
    assert!(late < Duration::from_secs(7), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_is_given_up() {
    let sink = Arc::new(Scripted {
        slow: [("a".to_owned(), Duration::from_secs(3600))].into(),
        ..Scripted::default()
    });
    let mut writer = Writer::new(sink.clone(), Rate::default());
    writer.submit(drop_vip("a"));
    while names(&sink).len() < 2 {
        writer.step().await;
        tokio::task::yield_now().await;
    }
    let arrived = sink.arrived.lock().unwrap();
    assert!(arrived[1].1 - arrived[0].1 < ATTEMPT + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_fight_over_an_object_slows_down_and_ends_with_another_state() {
    let sink = Arc::new(Scripted::default());
    let mut writer = Writer::new(sink.clone(), Rate::default());
    let start = Instant::now();
    let mut version = 1..;
    // Each time somebody else has changed it.
    let mut again = |last| ingress_at(version.next().unwrap(), last);
    for _ in 0..=FREE {
        writer.submit(again(1));
        settle(&mut writer).await;
    }
    assert!(start.elapsed() < Duration::from_millis(1));
    for _ in 0..12 {
        writer.submit(again(1));
        settle(&mut writer).await;
    }
    let fight = start.elapsed();
    assert!(fight > Duration::from_secs(60), "{fight:?}");
    // Another wish is not held up by it.
    writer.submit(again(1));
    let before = Instant::now();
    writer.submit(again(2));
    settle(&mut writer).await;
    assert!(before.elapsed() < Duration::from_millis(1));
    // And after a calm minute all is forgotten.
    sleep(CALM).await;
    writer.submit(again(2));
    let before = Instant::now();
    settle(&mut writer).await;
    assert!(before.elapsed() < Duration::from_millis(1));
}

fn conflict() -> Outcome {
    Outcome::Conflict("changed".into())
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_not_repeated_but_asks_for_a_new_decision() {
    let sink = Arc::new(Scripted {
        changed: Mutex::new([("n/s".to_owned(), conflict())].into()),
        ..Scripted::default()
    });
    let mut writer = Writer::new(sink.clone(), Rate::default());
    writer.submit(ingress(1));
    let start = Instant::now();
    assert_eq!(writer.step().await, None);
    assert!(writer.idle());
    let recheck = writer.step().await;
    let service = Key::Service(ServiceId::new("n", "s"));
    assert_eq!(recheck, Some(News::Recheck(service)));
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(names(&sink).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_decision_after_a_conflict_is_written_at_once_unless_it_goes_on() {
    let sink = Arc::new(Scripted::default());
    let mut writer = Writer::new(sink.clone(), Rate::default());
    let start = Instant::now();
    for version in 1..40 {
        sink.changed
            .lock()
            .unwrap()
            .insert("n/s".into(), conflict());
        writer.submit(ingress_at(version, 1));
        while !writer.idle() {
            writer.step().await;
        }
        if version == FREE {
            assert!(start.elapsed() < Duration::from_millis(1));
        }
    }
    assert!(start.elapsed() > Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn what_our_own_write_changed_is_no_reason_to_fail() {
    #[derive(Default)]
    struct Server(Mutex<Vec<Option<Revision>>>);
    impl Sink for Arc<Server> {
        async fn write(&self, write: &Write) -> Result<Outcome, Failure> {
            let mut seen = self.0.lock().unwrap();
            seen.push(write.seen().cloned());
            let version = 100 + u32::try_from(seen.len()).unwrap();
            Ok(Outcome::Written(match write {
                Write::DropVip { .. } => None,
                _ => Some(revision(version)),
            }))
        }
    }
    let server = Arc::new(Server::default());
    let mut writer = Writer::new(server.clone(), Rate::default());
    let settle = async |writer: &mut Writer<_>| {
        while !writer.idle() {
            writer.step().await;
        }
    };
    // While the first is under way, and when it is done but nothing was seen of it.
    writer.submit(ingress_at(1, 1));
    writer.submit(ingress_at(1, 2));
    settle(&mut writer).await;
    writer.submit(ingress_at(101, 3));
    settle(&mut writer).await;
    // Decided upon what our write replaced: nothing to do.
    writer.submit(ingress_at(102, 3));
    settle(&mut writer).await;
    assert_eq!(
        std::mem::take(&mut *server.0.lock().unwrap()),
        [Some(revision(1)), Some(revision(101)), Some(revision(102))]
    );
    // A VirtualIP created and dropped before anything was seen of it.
    let spec = lightship_crds::VirtualIPSpec::new([192, 0, 2, 1].into(), "p", vec![]);
    let create = Write::Vip {
        name: "v".into(),
        seen: None,
        spec,
    };
    writer.submit(create.clone());
    settle(&mut writer).await;
    writer.submit(drop_vip("v"));
    settle(&mut writer).await;
    // A creation stays one, whatever was there before.
    writer.submit(create);
    settle(&mut writer).await;
    let seen = std::mem::take(&mut *server.0.lock().unwrap());
    assert_eq!(seen, [None, Some(revision(101)), None]);
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_spread_at_the_rate() {
    let sink = Arc::new(Scripted::default());
    let rate = Rate {
        per_second: 10.0,
        burst: 20.0,
    };
    let mut writer = Writer::new(sink.clone(), rate);
    let start = Instant::now();
    for n in 0..50 {
        writer.submit(drop_vip(&n.to_string()));
    }
    settle(&mut writer).await;
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(3) && took < Duration::from_millis(3100),
        "{took:?}"
    );
    let arrived = sink.arrived.lock().unwrap();
    let at_once = arrived.iter().filter(|(_, at)| *at == start).count();
    assert_eq!(at_once, 20);
}

#[tokio::test(start_paused = true)]
async fn a_pools_status_is_written_now_and_then() {
    let sink = Arc::new(Scripted::default());
    let mut writer = Writer::new(sink.clone(), Rate::default());
    let start = Instant::now();
    for count in 0..100 {
        let status = lightship_crds::AddressPoolStatus {
            ipv4: lightship_crds::FamilyUsage {
                assigned: count,
                ..Default::default()
            },
            ..Default::default()
        };
        writer.submit(Write::PoolStatus {
            name: "lan".into(),
            seen: revision(1),
            status,
        });
        // Let it run if it may.
        let _ = timeout(Duration::from_millis(20), writer.step()).await;
    }
    settle(&mut writer).await;
    let arrived = sink.arrived.lock().unwrap();
    // Over 2 s: soon, and then every half second; the last state in the end.
    assert!((4..=6).contains(&arrived.len()), "{}", arrived.len());
    assert_eq!(arrived[0].1, start + POOL_WAIT);
    let last = &arrived[arrived.len() - 1].0;
    assert!(last.contains("assigned: 99"), "{last}");
    for pair in arrived.windows(2) {
        assert!(pair[1].1 - pair[0].1 >= POOL_PACE);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_busy_while_anything_is_being_written() {
    let sink = Arc::new(Scripted::default());
    let mut writer = Writer::new(sink, Rate::default());
    assert!(!writer.busy());
    writer.submit(drop_vip("one"));
    writer.submit(drop_vip("another"));
    writer.step().await;
    assert!(writer.busy());
    writer.step().await;
    assert!(!writer.busy());
    // A write that replaces another is no new request.
    for _ in 0..2 * CONCURRENT {
        writer.submit(drop_vip("again"));
    }
    assert_eq!(writer.running, 1);
    settle(&mut writer).await;
    assert!(!writer.busy() && writer.running == 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_tried_again() {
    let refused = Outcome::Refused("too many".into());
    let sink = Arc::new(Scripted {
        changed: Mutex::new([("vip".to_owned(), refused)].into()),
        ..Scripted::default()
    });
    // Named as the sink names it.
    let write = drop_vip("vip");
    let mut writer = Writer::new(sink.clone(), Rate::default());
    writer.submit(write.clone());
    let news = writer.step().await;
    assert_eq!(news, Some(News::Refused(write.key(), "too many".into())));
    settle(&mut writer).await;
    assert_eq!(names(&sink), ["vip", "vip"]);
}
