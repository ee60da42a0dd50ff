//! `cargo fuzz run heartbeat`.
#![no_main]

lightship_fuzz::libfuzzer_target!("heartbeat");
