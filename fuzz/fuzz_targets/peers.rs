//! What a member hears of the other one and of the witness: what is understood is what would be said again.
#![no_main]

use ccr_core::wire;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(heartbeat) = wire::decode_heartbeat(input) {
        let again = wire::encode_heartbeat(&heartbeat);
        if again.len() <= wire::MAX_DATAGRAM {
            assert_eq!(wire::decode_heartbeat(&again).as_ref(), Ok(&heartbeat));
        }
    }
    if let Ok((message, body)) = wire::decode_frame(input) {
        assert!(body.len() <= input.len(), "{message:?}");
    }
    if let Ok(Some(file)) = wire::decode_witness(input) {
        assert_eq!(wire::decode_witness(&wire::encode_witness(&file)), Ok(Some(file)));
    }
});
