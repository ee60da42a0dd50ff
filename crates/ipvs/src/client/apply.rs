//! Many ops in few system calls, each with its own verdict.
//!
//! A batch goes out in one datagram; the kernel works it off message by
//! message within the send call, going on after a refusal. It queues an answer
//! for each refusal, and for the last message in any case, since that alone
//! asks for an acknowledgement: when its answer is read, all others are known.
//! A batch is small enough for refusals of all to fit into the smallest usual
//! receive buffer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};

use super::link::Link;
use crate::codec::{self, IpvsMessage, Payload, frames};
use crate::diff::Op;
use crate::error::Error;

/// Ops in one datagram. A refusal costs the receive buffer about 1 KiB (most
/// of it the kernel's bookkeeping), and the usual buffer is 208 KiB.
const BATCH: usize = 64;

/// One op that failed.
#[derive(Debug, Clone)]
pub struct OpError {
    /// Its place in what was given to [`super::Client::apply`].
    pub index: usize,
    /// The op.
    pub op: Op,
    /// Why.
    pub error: Error,
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.error)
    }
}

/// The ops that failed, in their order. All others were applied.
#[derive(Debug, Clone)]
pub struct ApplyError {
    /// At least one.
    pub failures: Vec<OpError>,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A person reads the first few; the rest is mostly their consequence.
        const SHOWN: usize = 3;
        write!(f, "{} IPVS op(s) failed: ", self.failures.len())?;
        for (place, failure) in self.failures.iter().take(SHOWN).enumerate() {
            if place > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{failure}")?;
        }
        if self.failures.len() > SHOWN {
            f.write_str("; …")?;
        }
        Ok(())
    }
}

impl std::error::Error for ApplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failures
            .first()
            .map(|failure| &failure.error as &(dyn std::error::Error + 'static))
    }
}

pub(super) fn apply(link: &mut Link, family_id: u16, ops: &[Op]) -> Result<(), ApplyError> {
    let mut failures = Vec::new();
    for (number, batch) in ops.chunks(BATCH).enumerate() {
        let verdicts = send_batch(link, family_id, batch);
        failures.extend(verdicts.into_iter().map(|(offset, error)| OpError {
            index: number * BATCH + offset,
            op: batch[offset].clone(),
            error,
        }));
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(ApplyError { failures })
    }
}

/// Sends a batch and gathers the failures by place.
fn send_batch(link: &mut Link, family_id: u16, ops: &[Op]) -> BTreeMap<usize, Error> {
    let mut datagram = Vec::new();
    let mut verdicts = Verdicts::default();
    for (place, op) in ops.iter().enumerate() {
        let sequence = link.next_sequence();
        verdicts.expect(sequence, place);
        let last = place + 1 == ops.len();
        datagram.extend(codec::encode(
            IpvsMessage::from_op(op),
            family_id,
            if last {
                NLM_F_REQUEST | NLM_F_ACK
            } else {
                NLM_F_REQUEST
            },
            sequence,
        ));
    }
    if let Err(error) = link.send(&datagram) {
        verdicts.give_up(&error);
    }
    let deadline = link.deadline();
    while !verdicts.complete() {
        let received = if verdicts.overrun {
            link.receive_queued()
        } else {
            link.receive(deadline)
        };
        let outcome = received.and_then(|datagram| verdicts.take(datagram));
        match outcome {
            // The kernel had answered all before the send returned: what came
            // through can still be read, and what did not is lost.
            Err(Error::Overrun) => verdicts.overrun = true,
            Err(Error::Timeout) if verdicts.overrun => verdicts.give_up(&Error::Overrun),
            Err(error) => verdicts.give_up(&error),
            Ok(()) if Instant::now() >= deadline => verdicts.give_up(&Error::Timeout),
            Ok(()) => {}
        }
    }
    verdicts.failed
}

/// Which ops of a batch may still fail, and which did.
#[derive(Debug, Default)]
struct Verdicts {
    pending: BTreeMap<u32, usize>,
    /// The last op, which is always answered.
    last: Option<u32>,
    failed: BTreeMap<usize, Error>,
    overrun: bool,
}

impl Verdicts {
    fn expect(&mut self, sequence: u32, place: usize) {
        self.pending.insert(sequence, place);
        self.last = Some(sequence);
    }

    fn complete(&self) -> bool {
        self.pending.is_empty()
    }

    fn take(&mut self, datagram: &[u8]) -> Result<(), Error> {
        for frame in frames(datagram) {
            let frame = frame?;
            let Payload::Ack { errno, message } = frame.payload else {
                continue;
            };
            if let Some(place) = self.pending.remove(&frame.sequence)
                && errno != 0
            {
                self.failed.insert(place, Error::Kernel { errno, message });
            }
            // Answers come in order: who has not been refused by now has been obeyed, unless
            // refusals were lost.
            if self.last == Some(frame.sequence) && !self.overrun {
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// Nothing more will come: all that is unanswered failed with `error`.
    fn give_up(&mut self, error: &Error) {
        for place in std::mem::take(&mut self.pending).into_values() {
            self.failed.insert(place, error.clone());
        }
    }
}

#[cfg(test)]
mod tests;
