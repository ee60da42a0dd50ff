//! What the daemons share: client, logging, shutdown.
