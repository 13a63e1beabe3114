#![no_main]

use flannel_fuzz::{place, run};

libfuzzer_sys::fuzz_target!(init: place::enter_for_good(), |data: &[u8]| run("state_file", data));
