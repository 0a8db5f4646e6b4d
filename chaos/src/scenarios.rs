//! All scenarios.

mod abuse;
mod cuts;
mod deaths;
mod freezes;
mod hosts;
mod pools;
mod relays;
mod tasks;

use std::time::Duration;

use crate::scenario::{Needs, Scenario};

const SOON: Duration = Duration::from_secs(30);
const LATER: Duration = Duration::from_secs(60);
const MUCH_LATER: Duration = Duration::from_secs(300);

macro_rules! scenarios {
    ($($name:literal = $area:ident::$act:ident, $needs:ident, $limit:ident,
       load $load:literal, injection $injection:literal, pass $pass:literal;)+) => {
        &[$(Scenario {
            name: $name,
            load: $load,
            injection: $injection,
            pass: $pass,
            needs: Needs::$needs,
            limit: $limit,
            act: $area::$act,
        }),+]
    };
}

/// Too much for every time: only run by name.
pub(crate) const BY_NAME: &[&str] = &["half-shuffle-4gib"];

/// All of them, in the order in which they are run.
pub(crate) const ALL: &[Scenario] = scenarios! {
    "kill-processes" = deaths::processes, Nothing, SOON,
        load "4,000 naps of 20 ms, results kept by processes",
        injection "SIGKILL for one process after the other, every 250 ms",
        pass "the nannies start new ones, which go on; what each had runs again within 0.3 s";
    "kill-nannies" = deaths::nannies, Nothing, SOON,
        load "4,000 naps of 20 ms, results kept by processes",
        injection "SIGKILL for one nanny after the other; each comes back after half a second",
        pass "their processes end with them; what each had runs again within 1.5 s";
    "half-map" = deaths::half_map, Nothing, SOON,
        load "400 naps of 50 ms on 4 slots",
        injection "half the workers killed at half time",
        pass "only what they had at work runs again";
    "half-tree" = deaths::half_tree, Nothing, SOON,
        load "tree reduction of 65,536 leaves",
        injection "half the workers killed in the middle",
        pass "the right checksum";
    "half-kept-tree" = deaths::half_kept_tree, Nothing, SOON,
        load "tree reduction of 8,192 leaves, values kept by processes",
        injection "half the workers killed in the middle",
        pass "lost values are made again up the graph";
    "half-unwanted" = deaths::half_unwanted, Nothing, SOON,
        load "2,000 naps of 20 ms, results kept by processes, every second one dropped",
        injection "half the workers killed when the drops are known",
        pass "what nobody wants is not made again, the rest is";
    "half-shuffle" = deaths::half_shuffle, Nothing, LATER,
        load "shuffle of 64 x 64 blocks of 64 KiB (soak: 1 MiB)",
        injection "half the workers killed in the middle",
        pass "the right checksum";
    "half-shuffle-4gib" = deaths::half_shuffle_4gib, Nothing, MUCH_LATER,
        load "shuffle of 64 x 64 blocks of 1 MiB",
        injection "half the workers killed in the middle",
        pass "the right checksum";
    "all-workers" = deaths::all_workers, Nothing, LATER,
        load "shuffle of 32 x 32 blocks of 64 KiB",
        injection "all workers killed; new ones come after a second",
        pass "inputs are made again";
    "client-death" = deaths::client, Nothing, LATER,
        load "4,000 naps of 20 ms, twice",
        injection "SIGKILL for the first client in the middle",
        pass "what it held is released after its grace time; the second client never notices";
    "transfer-holder" = deaths::transfer_holder, Nothing, LATER,
        load "a value of 1 GB, made by one worker and read by another",
        injection "the holder killed in the middle of the transfer",
        pass "it is made again and read whole";
    "transfer-reader" = deaths::transfer_reader, Nothing, LATER,
        load "a value of 1 GB, made by one worker and read by another",
        injection "the reader killed in the middle of the transfer",
        pass "another reads it; it is not made again";
    "poison" = tasks::poison, Nothing, LATER,
        load "1,000 good tasks and one that aborts its process",
        injection "the task itself",
        pass "the bad task ends as killed after 3 runs and says why; all good ones end well";
    "memory-hog" = tasks::hog, Nothing, LATER,
        load "1,000 good tasks and one that takes 2 GB in workers with 512 MiB",
        injection "the task itself",
        pass "the bad task ends as killed, for memory; all good ones end well";
    "freeze-short" = freezes::short, Nothing, SOON,
        load "4,000 naps of 20 ms",
        injection "SIGSTOP for all of a worker, for 2 s",
        pass "no second run of anything";
    "freeze-long" = freezes::long, Nothing, LATER,
        load "naps of 20 ms for some 14 s",
        injection "SIGSTOP for all of a worker, for 8 s (soak: 60 s)",
        pass "it is given up; thawed, it works again within 10 s";
    "scheduler-freeze" = freezes::scheduler, Nothing, LATER,
        load "naps of 20 ms for some 4 s",
        injection "SIGSTOP for the scheduler, for 10 s (soak: 40 s)",
        pass "nobody is given up, no second run of anything";
    "busy-machine" = freezes::busy, Nothing, LATER,
        load "naps of 20 ms for some 13 s",
        injection "64 threads beside it that take all time of all processors, for 10 s (soak: 60 s)",
        pass "nobody is given up, no second run of anything";
    "slow-worker" = freezes::slow, Nothing, SOON,
        load "4,000 naps of 20 ms",
        injection "one worker of four gets a tenth of the time",
        pass "no second run; at most 1.3 of the time that the other three would take";
    "cut-short" = cuts::short, Network, SOON,
        load "naps of 20 ms for some 5 s",
        injection "a node cut off for 2 s",
        pass "no second run of anything";
    "cut-long" = cuts::long, Network, LATER,
        load "naps of 20 ms for some 14 s",
        injection "a node cut off for 8 s (soak: 60 s)",
        pass "it is given up; healed, it works again within 10 s";
    "cut-out" = cuts::out, Network, LATER,
        load "naps of 20 ms for some 4 s",
        injection "one way: what a node sends is lost until the load is done",
        pass "the others finish; healed, the node works again";
    "cut-in" = cuts::into, Network, LATER,
        load "naps of 20 ms for some 4 s",
        injection "one way: what is sent to a node is lost until the load is done",
        pass "the others finish; healed, the node works again";
    "flapping" = cuts::flapping, Network, LATER,
        load "naps of 20 ms for some 10 s",
        injection "a node cut off for 1 s again and again, 1 s apart",
        pass "no second run of anything";
    "loss" = cuts::loss, Network, LATER,
        load "shuffle of 16 x 16 blocks of 64 KiB, tree of 8,192 leaves",
        injection "everywhere 5 % of packets lost, 5 % doubled, 25 % late",
        pass "no second run of anything";
    "host-kill" = hosts::kill, Network, LATER,
        load "shuffle of 32 x 32 blocks of 256 KiB between nodes",
        injection "SIGKILL for all of half the nodes' workers, in the middle",
        pass "what they had runs again within 1.5 s; nobody waits for the dead";
    "host-crash" = hosts::crash, Network, LATER,
        load "4,000 naps of 20 ms, results kept by processes",
        injection "a node and its cable are gone at once; it is started again later",
        pass "what it had runs again within 6 s; the node works again";
    "relay" = relays::relay, Network, LATER,
        load "16 values of 4 MiB scattered and gathered (soak: 64 MiB), shuffle of 16 x 16 blocks of 256 KiB",
        injection "the client reaches no worker, and two pools don't reach each other, from the beginning",
        pass "the scheduler relays between all of them; no second run of anything";
    "relay-crash" = relays::crash, Network, LATER,
        load "shuffle of 32 x 32 blocks of 64 KiB between two pools that don't reach each other",
        injection "half of each pool is gone at once, with their cables, in the middle",
        pass "what they had runs again within 6 s; nobody waits for the dead";
    "pool-term" = pools::term, Nothing, SOON,
        load "4,000 naps of 20 ms, results kept by processes",
        injection "kill_pool.sh --signal TERM in the middle",
        pass "the pool leaves in good order; no second run: what it held was copied";
    "pool-kill" = pools::kill, Nothing, SOON,
        load "4,000 naps of 20 ms, results kept by processes",
        injection "kill_pool.sh --signal KILL in the middle",
        pass "what it held is made again";
    "pool-churn" = pools::churn, Nothing, LATER,
        load "naps of 20 ms for some 14 s (soak: 60 s), results kept by processes",
        injection "a pool joins and leaves every two seconds, by TERM and by KILL in turn",
        pass "the right result";
    "full-disk" = abuse::full_disk, Mount, LATER,
        load "4,000 naps of 20 ms",
        injection "a worker whose program cache has 1 MiB",
        pass "it says so; the others do the work";
    "garbage" = abuse::garbage, Nothing, LATER,
        load "tree reduction of 65,536 leaves",
        injection "10,000 datagrams of garbage per second at the scheduler's port",
        pass "at most 1.43 of the time without, or a second more";
};

/// So many naps of 20 ms.
fn naps(count: u32) -> Vec<String> {
    vec![count.to_string(), "--millis".to_owned(), "20".to_owned()]
}
