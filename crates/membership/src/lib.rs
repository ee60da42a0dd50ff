//! Pure failure detector and authenticated heartbeat codec.
