use super::*;

/// An `NLMSG_ERROR` as the kernel sends it for a capped acknowledgement.
fn ack(sequence: u32, errno: i32) -> Vec<u8> {
    let mut bytes = 36_u32.to_ne_bytes().to_vec();
    bytes.extend(2_u16.to_ne_bytes());
    bytes.extend(0x100_u16.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend((-errno).to_ne_bytes());
    bytes.extend([0; 16]);
    bytes
}

fn expecting(sequences: std::ops::Range<u32>) -> Verdicts {
    let mut verdicts = Verdicts::default();
    for (place, sequence) in sequences.enumerate() {
        verdicts.expect(sequence, place);
    }
    verdicts
}

#[test]
fn what_was_not_refused_when_the_last_is_answered_was_done() {
    let mut verdicts = expecting(10..14);
    verdicts.take(&[ack(12, 17), ack(10, 3)].concat()).unwrap();
    assert!(!verdicts.complete());
    verdicts.take(&ack(13, 0)).unwrap();
    assert!(verdicts.complete());
    let errnos: Vec<_> = verdicts
        .failed
        .iter()
        .map(|(place, error)| (*place, error.errno()))
        .collect();
    assert_eq!(errnos, [(0, Some(3)), (2, Some(17))]);
}

#[test]
fn a_refusal_of_the_last_is_the_end_too() {
    let mut verdicts = expecting(10..12);
    verdicts.take(&ack(11, 2)).unwrap();
    assert!(verdicts.complete());
    assert_eq!(verdicts.failed.len(), 1);
}

#[test]
fn after_a_loss_the_last_answer_says_nothing_of_the_others() {
    let mut verdicts = expecting(10..13);
    verdicts.overrun = true;
    verdicts.take(&ack(12, 0)).unwrap();
    assert!(!verdicts.complete());
    verdicts.give_up(&Error::Overrun);
    assert_eq!(verdicts.failed.len(), 2);
}

#[test]
fn strangers_and_repetitions_change_nothing() {
    let mut verdicts = expecting(10..11);
    verdicts.take(&ack(9, 5)).unwrap();
    assert!(!verdicts.complete());
    verdicts.take(&[ack(10, 0), ack(10, 5)].concat()).unwrap();
    assert!(verdicts.complete());
    assert!(verdicts.failed.is_empty());
}

#[test]
fn giving_up_fails_the_unanswered_only() {
    let mut verdicts = expecting(10..12);
    verdicts.take(&ack(10, 0)).unwrap();
    verdicts.give_up(&Error::Timeout);
    assert!(verdicts.complete());
    assert!(matches!(
        verdicts.failed.into_iter().collect::<Vec<_>>()[..],
        [(1, Error::Timeout)]
    ));
}
