//! `cargo fuzz run snapshot`.
#![no_main]

lightship_fuzz::libfuzzer_target!("snapshot");
