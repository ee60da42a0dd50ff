//! The client against this machine's kernel, by way of `nlctrl`, which every
//! kernel has. What needs ip_vs is in `tests/live.rs`.

use std::time::Instant;

use super::*;
use crate::diff::Op;
use crate::model::{Protocol, ServiceKey};

/// `GENL_ID_CTRL`.
const NLCTRL: u16 = 16;

fn link() -> Link {
    Link::new(Socket::new(NETLINK_GENERIC).unwrap(), DEFAULT_TIMEOUT).unwrap()
}

/// Ops that `nlctrl` refuses one by one: `DEL_SERVICE` (3) is its `GETFAMILY`,
/// and the service's first bytes no family's number.
fn refused_ops(count: u16) -> Vec<Op> {
    (0..count)
        .map(|port| {
            Op::DelService(ServiceKey::new(
                [192, 0, 2, 200].into(),
                Protocol::Tcp,
                port,
            ))
        })
        .collect()
}

#[test]
fn families_are_resolved() {
    assert_eq!(resolve_family(&mut link(), "nlctrl").unwrap(), NLCTRL);
}

#[test]
fn a_missing_family_is_not_supported() {
    assert!(matches!(
        resolve_family(&mut link(), "LS_NONESUCH"),
        Err(Error::NotSupported)
    ));
}

#[test]
fn a_refusal_brings_the_kernels_text() {
    let error = resolve_family(&mut link(), "a-name-too-long-for-a-family").unwrap_err();
    let Error::Kernel { errno, message } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(error.errno(), Some(*errno));
    let text = message.as_deref().unwrap();
    assert!(text.contains("policy"), "{text}");
    assert!(error.to_string().ends_with(text), "{error}");
}

#[test]
fn silence_ends_in_a_timeout() {
    let mut link = link();
    link.set_timeout(Duration::from_millis(50)).unwrap();
    // NLMSG_NOOP, which the kernel does not answer.
    let mut noop = 16_u32.to_ne_bytes().to_vec();
    noop.extend([1, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    let start = Instant::now();
    let reply = link.exchange(&noop, 9, |payload| payload.ipvs());
    assert!(matches!(reply, Err(Error::Timeout)), "{reply:?}");
    assert!(start.elapsed() >= Duration::from_millis(40));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_zero_timeout_is_refused() {
    assert!(matches!(
        link().set_timeout(Duration::ZERO),
        Err(Error::Invalid(_))
    ));
}

#[test]
fn late_replies_do_not_answer_the_next_request() {
    let mut link = link();
    let sequence = link.next_sequence();
    link.send(&codec::encode_family_request("LS_NONESUCH", sequence))
        .unwrap();
    // Its refusal is queued now, in front of the next reply.
    assert_eq!(resolve_family(&mut link, "nlctrl").unwrap(), NLCTRL);
}

#[test]
fn every_failed_op_is_reported_with_its_own_error() {
    let ops = refused_ops(200);
    let mut link = link();
    let error = apply::apply(&mut link, NLCTRL, &ops).unwrap_err();
    assert_eq!(error.failures.len(), ops.len());
    for (index, failure) in error.failures.iter().enumerate() {
        assert_eq!(failure.index, index);
        assert_eq!(failure.op, ops[index]);
        assert_eq!(failure.error.errno(), Some(ENOENT), "{failure}");
    }
    let text = error.to_string();
    assert!(text.starts_with("200 IPVS op(s) failed: delete service TCP 192.0.2.200:0: "));
    // And the link is still good.
    assert_eq!(resolve_family(&mut link, "nlctrl").unwrap(), NLCTRL);
}

/// The smallest receive buffer that Linux grants holds a few replies only.
#[test]
fn lost_acknowledgements_are_told_and_do_not_hang() {
    let mut link = link();
    link.shrink_receive_buffer();
    let ops = refused_ops(64);
    let start = Instant::now();
    let error = apply::apply(&mut link, NLCTRL, &ops).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(error.failures.len(), ops.len());
    let lost = error
        .failures
        .iter()
        .filter(|failure| matches!(failure.error, Error::Overrun))
        .count();
    assert!(lost > 0 && lost < ops.len(), "{lost} of {} lost", ops.len());
    assert_eq!(resolve_family(&mut link, "nlctrl").unwrap(), NLCTRL);
}

#[test]
fn opening_tells_whether_the_kernel_has_ip_vs() {
    match Client::open() {
        Ok(mut client) => assert_eq!(client.info().unwrap().version.0, 1),
        Err(error) => assert!(matches!(error, Error::NotSupported), "{error}"),
    }
}
