//! `cargo fuzz run ndp`.
#![no_main]

lightship_fuzz::libfuzzer_target!("ndp");
