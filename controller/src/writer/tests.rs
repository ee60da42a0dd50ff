use std::sync::Mutex;

use lightship_ipam::ServiceId;

use super::*;

/// Remembers what arrived; objects may be slow or refuse a number of times.
#[derive(Default)]
struct Scripted {
    arrived: Mutex<Vec<(String, Instant)>>,
    slow: HashMap<String, Duration>,
    refuse: Mutex<HashMap<String, u32>>,
}

impl Sink for Arc<Scripted> {
    type Error = String;

    async fn write(&self, write: &Write) -> Result<(), String> {
        let name = match write {
            Write::DropVip { name } => name.clone(),
            Write::Ingress {
                service, addresses, ..
            } => format!("{service}={addresses:?}"),
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
                Err("refused".into())
            }
            _ => Ok(()),
        }
    }
}

fn ingress(last: u8) -> Write {
    Write::Ingress {
        service: ServiceId::new("n", "s"),
        uid: String::new(),
        addresses: vec![[192, 0, 2, last].into()],
    }
}

fn drop_vip(name: &str) -> Write {
    Write::DropVip { name: name.into() }
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
    let mut writer = Writer::new(sink.clone());
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
    let mut writer = Writer::new(sink.clone());
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
    let mut writer = Writer::new(sink.clone());
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
    let mut writer = Writer::new(sink.clone());
    writer.submit(ingress(1));
    let pausing = |writer: &Writer<_>| {
        let slot = writer.slots.values().next();
        matches!(slot, Some(Slot::Pausing { attempt: 8, .. }))
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
async fn a_request_without_an_answer_is_given_up() {
    let sink = Arc::new(Scripted {
        slow: [("a".to_owned(), Duration::from_secs(3600))].into(),
        ..Scripted::default()
    });
    let mut writer = Writer::new(sink.clone());
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
    let mut writer = Writer::new(sink.clone());
    let start = Instant::now();
    for _ in 0..=FREE {
        writer.submit(ingress(1));
        settle(&mut writer).await;
    }
    assert!(start.elapsed() < Duration::from_millis(1));
    for _ in 0..12 {
        writer.submit(ingress(1));
        settle(&mut writer).await;
    }
    let fight = start.elapsed();
    assert!(fight > Duration::from_secs(60), "{fight:?}");
    // Another wish is not held up by it.
    writer.submit(ingress(1));
    let before = Instant::now();
    writer.submit(ingress(2));
    settle(&mut writer).await;
    assert!(before.elapsed() < Duration::from_millis(1));
    // And after a calm minute all is forgotten.
    sleep(CALM).await;
    writer.submit(ingress(2));
    let before = Instant::now();
    settle(&mut writer).await;
    assert!(before.elapsed() < Duration::from_millis(1));
}
