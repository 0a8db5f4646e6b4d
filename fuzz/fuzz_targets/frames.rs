//! Frames, cut anywhere: the first byte says into which pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let mut decoder = rdask_net::FrameDecoder::new();
    for part in bytes.chunks(usize::from(*piece).max(1)) {
        decoder.push(part);
        while let Ok(Some(_)) = decoder.next_frame() {}
    }
});
