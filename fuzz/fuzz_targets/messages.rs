//! Every kind of message.
#![no_main]

use rdask_core::message::{
    DataReply, DataRequest, DataWord, FromClient, FromNanny, FromProcess, ToClient, ToNanny,
    ToProcess,
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = postcard::from_bytes::<FromClient>(bytes);
    let _ = postcard::from_bytes::<FromNanny>(bytes);
    let _ = postcard::from_bytes::<FromProcess>(bytes);
    let _ = postcard::from_bytes::<ToClient>(bytes);
    let _ = postcard::from_bytes::<ToNanny>(bytes);
    let _ = postcard::from_bytes::<ToProcess>(bytes);
    let _ = postcard::from_bytes::<DataRequest>(bytes);
    let _ = postcard::from_bytes::<DataReply>(bytes);
    let _ = postcard::from_bytes::<DataWord>(bytes);
});
