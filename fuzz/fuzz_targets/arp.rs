//! `cargo fuzz run arp`.
#![no_main]

lightship_fuzz::libfuzzer_target!("arp");
