//! The control socket: one command per connection, its streams, its exit code.
//!
//! A client sends one line of JSON ([`Request`]); then both sides exchange
//! [`frame`]s. For an `exec` the client's frames are standard input (an empty one ends
//! it) and the server's are output, errors, and at last the exit code. The link
//! is the lab's own management network: there is no authentication.

pub(crate) mod client;
pub(crate) mod frame;
pub(crate) mod server;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a client may ask.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub(crate) enum Request {
    /// Run a program.
    Exec {
        /// Program (looked up in the node's PATH) and arguments.
        argv: Vec<String>,
        /// Variables added to the agent's environment.
        env: BTreeMap<String, String>,
    },
    /// Tell the node's time ([`Clock`]): also the way to see that a node is up.
    Clock,
}

/// The answer to [`Request::Clock`], as one output frame.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Clock {
    /// CLOCK_REALTIME of the node, nanoseconds since 1970.
    pub(crate) realtime_ns: u64,
    /// Seconds since the node's kernel started, as text (`/proc/uptime`).
    pub(crate) uptime: String,
}
