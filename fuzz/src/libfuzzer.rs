//! The targets as libFuzzer runs them.

pub use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

use crate::{TARGETS, Target};

/// The target of that name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("no target {name:?}"))
}

/// Lets libFuzzer damage an input, has the target repair it, and gives its new length.
pub fn mutate(name: &str, data: &mut [u8], size: usize, max_size: usize) -> usize {
    let size = fuzzer_mutate(data, size, max_size);
    let mut repaired = data[..size].to_vec();
    (target(name).repair)(&mut repaired);
    let length = repaired.len().min(data.len()).min(max_size);
    data[..length].copy_from_slice(&repaired[..length]);
    length
}

/// The whole of a program for `cargo fuzz`.
#[macro_export]
macro_rules! libfuzzer_target {
    ($name:literal) => {
        $crate::libfuzzer::fuzz_target!(|data: &[u8]| {
            let _ = ($crate::libfuzzer::target($name).run)(data);
        });
        $crate::libfuzzer::fuzz_mutator!(|data: &mut [u8],
                                          size: usize,
                                          max_size: usize,
                                          _seed: u32| {
            $crate::libfuzzer::mutate($name, data, size, max_size)
        });
    };
}
