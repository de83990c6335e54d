//! Lab files: whatever the text, findings with places inside it.
#![no_main]

use failoverlab::spec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(e) = spec::parse("lab.toml", text, &spec::Context::default()) {
        assert!(!e.to_string().is_empty());
    }
});
