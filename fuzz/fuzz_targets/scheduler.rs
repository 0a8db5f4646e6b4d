//! The scheduler's machine under whatever its peers may say, one decoded message after the other.
#![no_main]

use std::time::Duration;

use rdask_core::hello::Role;
use rdask_core::id::{ClientId, NannyId, ProcessId};
use rdask_core::message::{FromClient, FromNanny, FromProcess};
use rdask_core::scheduler::{ClientInfo, Config, NannyInfo, Scheduler};
use rdask_core::time::Time;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut scheduler = Scheduler::new(Config { result_bytes_max: 1 << 20, ..Config::default() });
    let mut rest = bytes;
    let mut now = Time(0);
    while let Some((kind, tail)) = rest.split_first() {
        now.0 += 1_000_000;
        let id = u32::from(*kind >> 3);
        rest = match kind & 7 {
            0 => match postcard::take_from_bytes::<Role>(tail) {
                Ok((Role::Nanny { node, pool, workers, contact, .. }, tail)) => {
                    scheduler.connect_nanny(now, NannyInfo { node, pool, workers, contact });
                    tail
                }
                Ok((Role::Client { program, surroundings, name, nested_in }, tail)) => {
                    let info = ClientInfo { program, surroundings, name, nested_in };
                    scheduler.connect_client(now, info);
                    tail
                }
                Ok((Role::Process { process, contact, .. }, tail)) => {
                    let _ = scheduler.connect_process(now, process, contact);
                    tail
                }
                // A link that breaks, and is taken up again.
                Ok((Role::Resume { who, received, .. }, tail)) => {
                    scheduler.handle_link_broken(now, who, Duration::from_millis(received));
                    scheduler.handle_link_resumed(now, who);
                    tail
                }
                Ok((Role::Observer, tail)) => tail,
                Err(_) => return,
            },
            1 | 2 => match postcard::take_from_bytes::<FromClient>(tail) {
                Ok((message, tail)) => {
                    scheduler.handle_client(now, ClientId(id), message);
                    tail
                }
                Err(_) => return,
            },
            3 | 4 => match postcard::take_from_bytes::<FromProcess>(tail) {
                Ok((message, tail)) => {
                    scheduler.handle_process(now, ProcessId(id), message);
                    tail
                }
                Err(_) => return,
            },
            5 => match postcard::take_from_bytes::<FromNanny>(tail) {
                Ok((message, tail)) => {
                    scheduler.handle_nanny(now, NannyId(id), message);
                    tail
                }
                Err(_) => return,
            },
            _ => {
                scheduler.handle_timeout(now);
                tail
            }
        };
        while scheduler.poll_action().is_some() {}
    }
    scheduler.check();
});
