//! Bytes of a host, and what an agent makes of them.
#![no_main]

use lab_agent::core::{Core, Input};
use lab_agent::message::ToAgent;
use lab_agent::wire::{Decoder, Frame, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<(u8, u32, Vec<u8>)>)| {
    let (raw, frames) = input;
    // Garbage, then whole frames with any body: few inputs would get past the checksum by themselves.
    let mut bytes = raw;
    for (kind, channel, body) in frames {
        encode(&Frame { kind, channel, body }, &mut bytes);
    }
    let (mut core, mut decoder) = (Core::new("boot", 0), Decoder::default());
    for frame in decoder.take(&bytes) {
        let said = frame.ok().and_then(|f| Some((f.channel, ToAgent::parse(&f).ok()?)));
        let heard = said.map_or(Input::Garbage("bad".into()), |(channel, said)| Input::Said(channel, said));
        core.hear(0, heard);
    }
});
