//! The heartbeat keys: what the Secret says, and how all speakers pass from one key to another
//! although they hear of it at different moments.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The shortest heartbeat secret that is used, in bytes.
const SHORTEST: usize = 16;

/// How long others may take to hear of a new key: so long it is accepted before it is used, and the
/// old one after that.
const OVERLAP: Duration = Duration::from_secs(5);

/// What heartbeats are signed with where everybody may: it keeps other software's datagrams out and
/// nobody else's.
const NO_SECRET: &[u8] = b"lightship heartbeats that anybody can forge";

/// The secrets to begin with, newest first: those that were known before, or where that is
/// wanted none that is secret. What was known without a secret is nothing with one.
pub fn initial(saved: &[Vec<u8>], insecure: bool) -> Vec<Vec<u8>> {
    if insecure {
        return vec![NO_SECRET.to_vec()];
    }
    let secret = saved.iter().filter(|known| *known != NO_SECRET);
    secret.cloned().collect()
}

/// Watches the heartbeat Secret and publishes its keys, the one to sign with first.
pub async fn keys(client: Client, namespace: &str, keys: watch::Sender<Vec<Vec<u8>>>) {
    let name = lightship_crds::HEARTBEAT_SECRET;
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let config = Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(lightship_kit::watch(api, config));
    let mut steps: VecDeque<(Instant, Vec<Vec<u8>>)> = VecDeque::new();
    let mut wanted = None;
    loop {
        let due = steps.front().map(|(at, _)| *at);
        let event = tokio::select! {
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some((_, next)) = steps.pop_front() {
                    keys.send_if_modified(|now| std::mem::replace(now, next.clone()) != next);
                }
                continue;
            }
            event = events.next() => match event {
                Some(event) => event,
                None => return,
            },
        };
        match event {
            Ok(Event::Apply(secret) | Event::InitApply(secret)) => {
                let Some(found) = entries(&secret) else {
                    tracing::error!(
                        "Secret {namespace}/{name} has no entry `key` of at least {SHORTEST} bytes; \
                         delete the Secret, and the controller makes a good one"
                    );
                    continue;
                };
                if wanted.as_ref() == Some(&found) {
                    continue;
                }
                // After a start the others have long heard of what is new to this one.
                let late = wanted.is_none();
                let before = keys.borrow().clone();
                let now = Instant::now();
                let passage = passage(&before, &found, late).into_iter();
                steps = passage.map(|(after, keys)| (now + after, keys)).collect();
                wanted = Some(found);
            }
            // A Secret deleted by mistake must not silence the heartbeats: the controller
            // makes a new one, and until then the old keys go on.
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot watch Secret {namespace}/{name}"),
        }
    }
}

/// The key, and the one that is accepted as well.
fn entries(secret: &Secret) -> Option<Vec<Vec<u8>>> {
    let data = secret.data.as_ref()?;
    // Anybody could forge heartbeats under an empty or short key.
    let entry = |name| data.get(name).filter(|key| key.0.len() >= SHORTEST);
    let all = std::iter::once(entry("key")?).chain(entry("previous-key"));
    Some(all.map(|key| key.0.clone()).collect())
}

/// How to get from the keys in use to those of the Secret, so that no heartbeat is refused on the
/// way: what is used when, counted from now. `late`: the others are there already.
fn passage(before: &[Vec<u8>], found: &[Vec<u8>], late: bool) -> Vec<(Duration, Vec<Vec<u8>>)> {
    let (Some(old), Some(new)) = (before.first(), found.first()) else {
        return vec![(Duration::ZERO, found.to_vec())];
    };
    let mut steps = Vec::new();
    let mut after = Duration::ZERO;
    let mut step = |keys: Vec<Vec<u8>>| {
        steps.push((after, keys));
        after += OVERLAP;
    };
    if !late && !before.contains(new) {
        step(vec![old.clone(), new.clone()]);
    }
    if !found.contains(old) {
        step(vec![new.clone(), old.clone()]);
    }
    step(found.to_vec());
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Vec<u8>> {
        text.chars().map(|key| vec![key as u8]).collect()
    }

    fn steps(before: &str, found: &str, late: bool) -> Vec<String> {
        let steps = passage(&all(before), &all(found), late);
        let text = |keys: &Vec<Vec<u8>>| keys.iter().map(|key| key[0] as char).collect::<String>();
        let told = steps.iter().enumerate().map(|(n, (after, keys))| {
            assert_eq!(*after, OVERLAP * u32::try_from(n).unwrap());
            text(keys)
        });
        told.collect()
    }

    #[test]
    fn a_new_key_is_accepted_before_it_is_used_and_the_old_one_after_that() {
        for (before, found, late, expected) in [
            // The first key, the same again, and the documented rotation.
            ("", "a", false, &["a"][..]),
            ("a", "a", false, &["a"]),
            ("a", "ab", false, &["ab"]),
            ("ab", "ba", false, &["ba"]),
            ("ba", "b", false, &["b"]),
            // In one go, as after the Secret was deleted, and with half of it.
            ("a", "b", false, &["ab", "ba", "b"]),
            ("a", "ba", false, &["ab", "ba"]),
            ("ab", "b", false, &["ba", "b"]),
            // Who comes back finds the others there already.
            ("a", "b", true, &["ba", "b"]),
        ] {
            assert_eq!(steps(before, found, late), expected, "{before} to {found}");
        }
    }

    #[test]
    fn speakers_that_hear_of_a_key_within_the_overlap_accept_each_other_throughout() {
        let passage = passage(&all("a"), &all("b"), false);
        let at = |now: Duration, heard: Duration| {
            let since = now.checked_sub(heard)?;
            let done = passage.iter().take_while(|(after, _)| *after <= since);
            done.last().map(|(_, keys)| keys.clone())
        };
        let early = Duration::ZERO;
        for late in [0, 1, 2500, 4999].map(Duration::from_millis) {
            for now in (0..20_000).step_by(50).map(Duration::from_millis) {
                let one = at(now, early).unwrap_or_else(|| all("a"));
                let other = at(now, late).unwrap_or_else(|| all("a"));
                assert!(
                    other.contains(&one[0]),
                    "{now:?}, {late:?} late: {one:?}, {other:?}"
                );
                assert!(
                    one.contains(&other[0]),
                    "{now:?}, {late:?} late: {one:?}, {other:?}"
                );
            }
        }
    }

    #[test]
    fn without_a_secret_only_when_told_to_and_never_after_that_by_itself() {
        let secret = vec![b"0123456789abcdef".to_vec()];
        assert_eq!(initial(&[], false), [[0u8; 0]; 0]);
        assert_eq!(initial(&secret, false), secret);
        let insecure = initial(&secret, true);
        assert_eq!(insecure, [NO_SECRET]);
        assert_eq!(initial(&insecure, false), [[0u8; 0]; 0]);
    }
}
