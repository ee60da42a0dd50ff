//! What the daemons share: logging, the Kubernetes client, watches, the monitoring port, and the
//! signal to stop.

mod admin;
mod backoff;
mod client;
mod logging;
mod shutdown;

pub use admin::{Admin, AdminAddress, Verdict};
pub use backoff::{pause, watch, watch_pauses};
pub use client::{asked_pause, connect, while_busy};
pub use logging::{LogFormat, UnknownLogFormat, init_logging};
pub use shutdown::shutdown_signal;
