//! Logs, segments and records as they lie on a disk that may have changed them.
#![no_main]

use ccr_core::record::PersistentState;
use ccr_core::store::log;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(scan) = log::scan(input) {
        assert!(scan.used >= log::HEADER && scan.used <= input.len());
    }
    // What they say is not looked at: they must not panic, whatever the input.
    let _ = log::inspect(input, 4096);
    let _ = log::segment(input);
    let _ = PersistentState::decode(input);
});
