//! What the daemons share: logging, the Kubernetes client, and the signal to stop.

mod client;
mod logging;
mod shutdown;

pub use client::connect;
pub use logging::{LogFormat, UnknownLogFormat, init_logging};
pub use shutdown::shutdown_signal;
