//! Why tasks aren't running, and where they are placed.

use std::time::Duration;

use rdask::explain::{InputState, Lack, Why};
use rdask::{LocalCluster, Policy};

use crate::cluster::{Cluster, on_both};
use crate::proc::wait_until;

pub(crate) fn every_task_that_waits_says_why() {
    on_both(2, |client| {
        let nap = |ms: u64| {
            std::thread::sleep(Duration::from_millis(ms));
            ms
        };
        let done = client.submit(f64::sqrt, (16.0,));
        done.wait().unwrap();
        assert!(matches!(client.explain(&done).unwrap().why, Why::Done { .. }));
        let naps = client.map(nap, [6_000; 4]);
        wait_until("two run", || client.status().unwrap().assigned == 2);
        let whys: Vec<Why> = naps.iter().map(|nap| client.explain(nap).unwrap().why).collect();
        let runs = |why: &&Why| matches!(why, Why::Assigned { ahead: 0 | 1, .. });
        let waits = |why: &&Why| matches!(why, Why::NoRoom { resource: None, sharers: 0, .. });
        assert_eq!((whys.iter().filter(runs).count(), whys.iter().filter(waits).count()), (2, 2));
        let sum = client.submit(|naps: Vec<u64>| naps.len(), (&naps,));
        // What takes the list is a task of its own, and waits for the naps.
        let Why::Inputs { missing: 1, first } = client.explain(&sum).unwrap().why else { panic!() };
        assert_eq!(first[0].1, InputState::Waiting);
        let gpu = client.options().resource("GPU", 2.0).submit(nap, (1,));
        let Why::Unsuited { workers, .. } = client.explain(&gpu).unwrap().why else { panic!() };
        assert!(workers.iter().all(|(_, lack)| *lack == Lack::Resource("GPU".into(), 0)));
        let failed = client.try_submit(|_: u8| Err::<u8, _>("no"), (1,));
        let once_more = client.options().retries(1).retry_delay(Duration::from_secs(3600));
        let delayed = once_more.priority(1).try_submit(|_: u8| Err::<u8, _>("no"), (1,));
        naps.cancel();
        failed.wait().unwrap();
        let Why::Failed(failure) = client.explain(&failed).unwrap().why else { panic!() };
        assert_eq!(failure.message, "no");
        wait_until(
            "the delay has begun",
            || matches!(client.explain(&delayed).unwrap().why, Why::Delay { left } if left.as_secs() > 3000),
        );
        assert!(matches!(client.explain(&naps[0]).unwrap().why, Why::Failed(_)));
    });
}

pub(crate) fn results_are_the_same_at_random_places() {
    for seed in [1, 2] {
        let random = LocalCluster::new().processes(3).threads(1).policy(Policy::Random { seed });
        let cluster = random.start().unwrap();
        let client = cluster.client().unwrap();
        let blocks = client.map(|i: u64| vec![i; 1000], 0..100);
        let sums = client.map(|block: Vec<u64>| block.iter().sum::<u64>(), &blocks);
        let total = client.tree(&sums, |a, b| a + b).result().unwrap();
        assert_eq!(total, 1000 * 99 * 100 / 2);
        let cut = |block: Vec<u64>| block.chunks(250).map(<[u64]>::to_vec).collect::<Vec<_>>();
        let join = |pieces: Vec<Vec<u64>>| pieces.concat();
        let joined = client.gather(client.shuffle(&blocks, 4, cut, join)).unwrap();
        let expected: Vec<u64> = (0..100).flat_map(|i| [i; 250]).collect();
        assert_eq!(joined, vec![expected; 4]);
    }
}

pub(crate) fn a_reduction_of_large_values_moves_little() {
    const LEN: u64 = 1 << 15;
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let blocks = client.map(|i: u64| vec![i; LEN as usize], 0..64);
    let add = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let sum = client.tree(blocks, add);
    assert_eq!(sum.result().unwrap(), vec![63 * 64 / 2; LEN as usize]);
    let moved = client.status().unwrap().transferred_bytes;
    // One would do, and does where both processes get the time they want. On a busy machine one
    // stands still meanwhile, and the other takes of what waits for it. At random it is 63.
    assert!(moved <= 16 * LEN * 8, "{} of 64 blocks moved", moved / (LEN * 8));
}
