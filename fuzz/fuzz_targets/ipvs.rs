//! `cargo fuzz run ipvs`.
#![no_main]

lightship_fuzz::libfuzzer_target!("ipvs");
