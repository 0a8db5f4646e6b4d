//! The scheduler file, as somebody may have left it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(file) = rdask_net::SchedulerFile::from_json(text)
    {
        let _ = file.join_identity();
    }
});
