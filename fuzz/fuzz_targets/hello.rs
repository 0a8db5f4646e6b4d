//! The first frames of a link.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = rdask_core::hello::decode_hello(bytes);
    let _ = rdask_core::hello::decode_welcome(bytes);
    let _ = rdask_core::hello::decode_resumption(bytes);
});
