#![no_main]

#[path = "../src/checks.rs"]
mod checks;
#[path = "../src/counting.rs"]
mod counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::imatrix(data));
