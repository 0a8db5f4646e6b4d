//! Tasks with several outputs, and what is built of them.

use rdask::{Client, FailureKind, Parts};

use crate::cluster::{Cluster, on_both, wait_until_forgotten};
use crate::proc::kill_9;

/// `width` outputs of `len` numbers each, all of which say whose they are.
fn outputs(client: &Client, tasks: u64, width: usize, len: usize) -> Parts<Vec<u64>> {
    let split = |(task, width, len): (u64, usize, usize)| -> Vec<Vec<u64>> {
        (0..width as u64).map(|output| vec![1000 * task + output; len]).collect()
    };
    client.split(split, (0..tasks).map(|task| (task, width, len)), width)
}

pub(crate) fn a_task_has_several_outputs_short_and_long() {
    on_both(2, |client| {
        for len in [1, 100, 128, 129, 20_000] {
            let parts = outputs(client, 6, 5, len);
            let sum = |numbers: &Vec<u64>| numbers.iter().sum::<u64>() / numbers.len() as u64;
            let part = parts.get(4, 3).unwrap();
            assert_eq!(client.submit(sum, (&part,)).result().unwrap(), 4003);
            assert_eq!(part.result().unwrap(), vec![4003; len]);
            let firsts = client.map(|numbers: Vec<u64>| numbers[0], parts.column(2));
            assert_eq!(client.gather(firsts).unwrap(), [2, 1002, 2002, 3002, 4002, 5002]);
            let all = |all: Vec<Vec<u64>>| all.iter().map(|one| one[0]).collect::<Vec<_>>();
            let listed = client.submit(all, (&parts.column(4),)).result().unwrap();
            assert_eq!(listed, [4, 1004, 2004, 3004, 4004, 5004]);
            let tree = |a: Vec<u64>, b: Vec<u64>| a.iter().zip(b).map(|(a, b)| a + b).collect();
            let root = client.tree(parts.column(1), tree).result().unwrap();
            assert_eq!(root, vec![15_006; len]);
            let output = parts.output(0);
            drop((parts, part));
            assert_eq!(client.gather(&output).unwrap()[5], vec![5000; len]);
            drop(output);
            wait_until_forgotten(client);
        }
    });
}

pub(crate) fn a_task_with_one_output_is_a_task_with_several() {
    on_both(2, |client| {
        let one = client.split(|x: u64| vec![vec![x; 1000]], [7], 1);
        assert_eq!(one.get(0, 0).unwrap().result().unwrap(), vec![7; 1000]);
        let joined = client.shuffle(0..3_u64, 1, |x: u64| [x], |all: Vec<u64>| all);
        assert_eq!(client.gather(joined).unwrap(), [[0, 1, 2]]);
        let nothing = client.shuffle([0_u64; 0], 2, |x: u64| [x, x], |all: Vec<u64>| all);
        assert_eq!(client.gather(nothing).unwrap(), [[0_u64; 0], []]);
    });
}

pub(crate) fn a_wrong_number_of_outputs_fails_its_task_with_both_numbers() {
    on_both(1, |client| {
        let parts = client.split(|x: u64| vec![x; x as usize], [2, 3, 0], 3);
        assert_eq!(parts.get(1, 2).unwrap().result().unwrap(), 3);
        for (task, found) in [(0, 2), (2, 0)] {
            let error = parts.get(task, 0).unwrap().result().unwrap_err();
            let expected = format!("it returned {found} outputs where 3 were asked for");
            assert!(error.to_string().contains(&expected), "{error}");
        }
        let failed = client.split(|_: u64| Err::<[u64; 2], _>("no such block"), [1], 2);
        let error = failed.get(0, 1).unwrap().result().unwrap_err();
        assert_eq!(error.task().unwrap().kind(), FailureKind::Returned);
        assert!(error.to_string().contains("no such block"), "{error}");
    });
}

/// Cuts a block of numbers into as many pieces as it says first, by remainder.
#[expect(clippy::ptr_arg, reason = "a slice has no owner that could be borrowed from")]
fn by_remainder(block: &Vec<u64>) -> Vec<Vec<u64>> {
    let mut pieces = vec![Vec::new(); block[0] as usize];
    block[1..].iter().for_each(|n| pieces[(n % block[0]) as usize].push(*n));
    pieces
}

pub(crate) fn a_shuffle_moves_each_piece_once_at_most() {
    const WIDTH: u64 = 8;
    const LEN: u64 = 1 << 15;
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let make = |task: u64| -> Vec<u64> {
        std::iter::once(WIDTH).chain(task * LEN..(task + 1) * LEN).collect()
    };
    let blocks = client.map(make, 0..WIDTH);
    client.wait(&blocks).unwrap();
    let before = client.status().unwrap().transferred_bytes;
    let join = |pieces: Vec<Vec<u64>>| pieces.concat();
    let groups = client.shuffle(&blocks, WIDTH as usize, by_remainder, join);
    client.wait(&groups).unwrap();
    let moved = client.status().unwrap().transferred_bytes - before;
    let total = WIDTH * LEN * 8;
    assert!(moved >= total / 4, "{moved} of {total} bytes");
    // Half of the pieces, and a block or two that was cut where there was room first.
    assert!(moved <= total * 8 / 10, "{moved} of {total} bytes moved between two processes");
    for (remainder, group) in (0..).zip(client.gather(&groups).unwrap()) {
        assert!(group.iter().copied().eq((0..WIDTH * LEN / WIDTH).map(|n| n * WIDTH + remainder)));
    }
    drop((blocks, groups));
    wait_until_forgotten(&client);
}

pub(crate) fn outputs_that_only_a_killed_process_had_are_made_again() {
    let cluster = Cluster::new(2, 1);
    let client = cluster.client();
    let parts = outputs(&client, 10, 4, 5000);
    client.wait(parts.output(3)).unwrap();
    let column = parts.column(0);
    let first = client.map(|numbers: Vec<u64>| numbers[4999], column.iter());
    client.wait(&first).unwrap();
    kill_9(cluster.processes()[0]);
    let sums = client.map(|numbers: Vec<u64>| numbers.iter().sum::<u64>(), parts.column(2));
    let expected = |output: u64| (0..10).map(move |task| 1000 * task + output);
    let sums = client.gather(sums).unwrap();
    assert!(sums.into_iter().eq(expected(2).map(|n| 5000 * n)));
    for output in 0..4 {
        let numbers = client.gather(parts.output(output as usize)).unwrap();
        assert!(numbers.into_iter().map(|numbers| numbers[17]).eq(expected(output)));
    }
    drop((parts, column, first));
    wait_until_forgotten(&client);
}
