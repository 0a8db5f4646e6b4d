//! Values: when they are encoded, how large they may be, and what else goes on meanwhile.

use std::time::{Duration, Instant};

use rdask::codec::encodings_completed;
use rdask::{Client, LocalCluster, Remote};

use crate::cluster::Cluster;
use crate::proc::wait_until;

type Pairs = Vec<(u32, u32)>;

/// 1 MiB in memory, and no vector of numbers.
fn pairs(x: u32) -> Pairs {
    vec![(x, x); (1 << 20) / size_of::<(u32, u32)>()]
}

fn next_pairs(pairs: &Pairs) -> Pairs {
    let mut pairs = pairs.clone();
    pairs[0].0 += 1;
    pairs
}

fn next_numbers(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers[0] += 1.0;
    numbers
}

const LINKS: u16 = 50;

/// How many encodings the process completed while chains of values passed through it: by
/// reference, and, of numbers, by value. Who takes another type by value takes a copy, by encoding.
fn encodings_in_chains(client: &Client) -> u64 {
    let before = client.submit(|_: u8| encodings_completed(), (0,)).result().unwrap();
    let mut by_reference: Remote<Pairs> = client.submit(pairs, (0,));
    let mut by_value = client.submit(|x: f64| vec![x; (1 << 20) / size_of::<f64>()], (0.0,));
    for _ in 0..LINKS {
        by_reference = client.submit(next_pairs, (&by_reference,));
        by_value = client.submit(next_numbers, (by_value,));
    }
    let end = |pairs: &Pairs, numbers: Vec<f64>| (pairs[0].0, numbers[0], encodings_completed());
    let (first, second, after) = client.submit(end, (by_reference, by_value)).result().unwrap();
    assert_eq!((first, second), (u32::from(LINKS), f64::from(LINKS)));
    after - before
}

pub(crate) fn chains_of_large_values_in_one_process_are_not_encoded() {
    let process = Cluster::new(1, 2);
    // The first answer itself was encoded after it was made.
    assert_eq!(encodings_in_chains(&process.client()), 1);
    // In one process with the client there is the client's side as well: a few small arguments.
    let threads = LocalCluster::new().threads(2).start().unwrap();
    let few = encodings_in_chains(&threads.client().unwrap());
    assert!(few < u64::from(LINKS), "client and process together completed {few} encodings");
}

/// How many there are, if each is where it belongs.
fn count_in_order(values: Vec<u64>) -> Option<usize> {
    let in_order = (0..).zip(&values).all(|(index, value)| index == *value);
    in_order.then_some(values.len())
}

pub(crate) fn lists_of_thirty_thousand_come_whole_and_longer_ones_are_refused() {
    const COUNT: u64 = 30_000;
    let cluster = Cluster::new(2, 2);
    let client = cluster.client();
    let mapped = client.map(|x: u64| x, 0..COUNT);
    let of_mapped = client.submit(count_in_order, (&mapped,));
    let single: Vec<Remote<u64>> = (0..COUNT).map(|x| client.submit(|x: u64| x, (x,))).collect();
    let of_single = client.submit(count_in_order, (&single,));
    assert_eq!(of_mapped.result().unwrap(), Some(COUNT as usize));
    assert_eq!(of_single.result().unwrap(), Some(COUNT as usize));
    // More edges than a message holds, however few bytes each takes; the connection is fine.
    let many: Vec<Remote<u64>> = single.iter().cycle().take(400_000).cloned().collect();
    let error = client.submit(count_in_order, (&many,)).result().unwrap_err();
    assert!(error.to_string().contains("tree"), "{error}");
    assert_eq!(single[7].result().unwrap(), 7);
}

pub(crate) fn a_huge_argument_arrives_while_others_are_served() {
    const MEDIAN_MAX: Duration = Duration::from_millis(50);
    const ROUND_TRIPS: usize = 10;
    const TRANSFERS_MAX: usize = 20;
    let bytes = if cfg!(debug_assertions) { 100_000_000 } else { 500_000_000 };
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let other = cluster.client();
    let mut times = Vec::new();
    let mut transfers = 0;
    // One transfer may be over before a busy machine has made a few round trips beside it.
    while times.len() < ROUND_TRIPS {
        transfers += 1;
        assert!(transfers <= TRANSFERS_MAX, "too few round trips to judge by: {times:?}");
        let numbers: Vec<f64> = (0..bytes / 8).map(f64::from).collect();
        let sum = client
            .submit(|numbers: &Vec<f64>| (numbers.len(), numbers[numbers.len() - 1]), (numbers,));
        while !sum.wait_timeout(Duration::ZERO).unwrap() {
            let started = Instant::now();
            other.submit(|x: u64| x, (1,)).result().unwrap();
            times.push(started.elapsed());
        }
        assert_eq!(sum.result().unwrap(), (bytes as usize / 8, f64::from(bytes / 8 - 1)));
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median < MEDIAN_MAX, "{median:?} in the median of {} round trips", times.len());
}

pub(crate) fn vectors_of_numbers_come_back_as_they_were() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    macro_rules! check {
        ($($number:ty),+) => {$(
            for len in [0, 1, 100, 100_000_u32] {
                let values: Vec<$number> = (0..len).map(|x| x as u8 as $number).collect();
                let there = client.submit(|v: Vec<$number>| v, (values.clone(),));
                let again = client.submit(|v: &Vec<$number>| v.clone(), (&there,));
                assert_eq!(again.result().unwrap(), values, "{len} x {}", stringify!($number));
            }
        )+};
    }
    check!(u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, usize, isize, f32, f64);
    let extremes = vec![f64::NAN, -0.0, f64::INFINITY, f64::MIN_POSITIVE];
    let back = client.submit(|v: Vec<f64>| v, (extremes.clone(),)).result().unwrap();
    let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&back), bits(&extremes));
}

pub(crate) fn large_results_go_from_process_to_process_and_to_the_client() {
    let cluster = Cluster::new(3, 1);
    let client = cluster.client();
    let parts = client.map(|x: u64| vec![x; 300_000], 0..12);
    let sums = client.map(|part: Vec<u64>| part.iter().sum::<u64>(), &parts);
    assert_eq!(client.gather(&sums).unwrap(), (0..12).map(|x| x * 300_000).collect::<Vec<_>>());
    let all = client.submit(|all: Vec<Vec<u64>>| all.concat().len(), (&parts,));
    assert_eq!(all.result().unwrap(), 12 * 300_000);
    let here = client.gather(&parts).unwrap();
    assert!(here.iter().zip(0..).all(|(part, x)| part.iter().all(|value| *value == x)));
    drop((parts, sums, all));
    wait_until("nothing is held", || client.status().unwrap().done == 0);
}
