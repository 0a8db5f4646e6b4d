//! What clients can ask for, on threads and on processes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdask::{Shared, TaskStatus};

use crate::cluster::{on_both, wait_until_forgotten};
use crate::proc::wait_until;

fn square(x: i64) -> i64 {
    x * x
}

pub(crate) fn results_come_in_the_order_of_what_they_were_made_from() {
    on_both(2, |client| {
        let reversed: Vec<_> = (0..1000).rev().map(|x| client.submit(square, (x,))).collect();
        let expected: Vec<i64> = (0..1000).rev().map(square).collect();
        assert_eq!(client.gather(&reversed).unwrap(), expected);
        let mapped = client.map(square, (0..1000).rev());
        assert_eq!(client.gather(&mapped).unwrap(), expected);
        let (odd, even): (Vec<_>, Vec<_>) =
            mapped.into_iter().enumerate().partition(|(position, _)| position % 2 == 1);
        let mixed: Vec<_> = odd.into_iter().chain(even).map(|(_, remote)| remote).collect();
        let values = client.gather(&mixed).unwrap();
        assert_eq!((values[0], values[500]), (square(998), square(999)));
    });
}

pub(crate) fn as_completed_gives_every_result_once_and_early_ones_first() {
    on_both(2, |client| {
        let nap = |ms: u64| {
            std::thread::sleep(Duration::from_millis(ms));
            ms
        };
        let mut completed = client.as_completed(client.map(nap, [1500, 1, 2, 3]));
        let (first, value) = completed.next().unwrap();
        assert!(first != 0 && value.unwrap() < 1500, "the slowest came first");
        let rest: BTreeMap<usize, u64> = completed.map(|(at, ms)| (at, ms.unwrap())).collect();
        assert_eq!(rest.len(), 3);
        assert_eq!(rest[&0], 1500);
    });
}

pub(crate) fn waiting_may_end_before_the_tasks_do() {
    on_both(2, |client| {
        let nap = |ms: u64| std::thread::sleep(Duration::from_millis(ms));
        let naps = client.map(nap, [0, 60_000]);
        client.wait(naps.get(0).unwrap()).unwrap();
        let started = Instant::now();
        let waited = client.wait_timeout(&naps, Duration::from_millis(100)).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(100));
        assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
        assert!(!naps[1].wait_timeout(Duration::ZERO).unwrap());
        assert_eq!(naps[1].status().unwrap(), TaskStatus::Pending);
        assert_eq!(naps[0].status().unwrap(), TaskStatus::Finished);
        client.cancel(&naps);
        assert!(naps[1].result().unwrap_err().is_cancelled());
        assert_eq!(naps[1].status().unwrap(), TaskStatus::Cancelled);
        assert!(naps[0].result().is_ok(), "what had ended stays as it was");
    });
}

pub(crate) fn cancelling_ends_what_depends_on_a_task_and_nothing_else() {
    on_both(2, |client| {
        let endless = |_: u8| {
            while !rdask::context().is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let running = client.submit(endless, (0,));
        let dependent = client.submit(|_: &()| 1, (&running,));
        let other = client.submit(square, (3,));
        assert_eq!(other.result().unwrap(), 9);
        running.cancel();
        assert!(running.result().unwrap_err().is_cancelled());
        assert!(dependent.result().unwrap_err().is_cancelled());
        assert_eq!(client.gather(client.map(square, 0..4)).unwrap(), [0, 1, 4, 9]);
        drop((running, dependent, other));
        wait_until_forgotten(client);
    });
}

pub(crate) fn scattered_values_feed_many_tasks() {
    on_both(2, |client| {
        let small = client.scatter(2_i64);
        let large = client.scatter((0..100_000).collect::<Vec<i64>>());
        let at = |i: usize, table: &Vec<i64>| table[i];
        let values = client.map_with(at, [1, 99_999], &large);
        assert_eq!(client.gather(values).unwrap(), [1, 99_999]);
        let sum = client.submit(|a: i64, b: &Vec<i64>| a + b[10], (&small, &large));
        assert_eq!(sum.result().unwrap(), 12);
        assert_eq!(large.result().unwrap().len(), 100_000);
        let parts = client.scatter_all((0..10).map(|x| vec![x; 50_000]));
        assert_eq!(client.gather(&parts).unwrap()[7], vec![7; 50_000]);
    });
}

pub(crate) fn trees_fold_in_order() {
    on_both(2, |client| {
        let words = client.map(|n: u32| format!("{n} "), 0..1000);
        let text = client.tree(words, |a: String, b: String| a + &b).result().unwrap();
        assert_eq!(text, (0..1000).map(|n| format!("{n} ")).collect::<String>());
        assert_eq!(client.tree([5], |a: i32, b| a + b).result().unwrap(), 5);
        assert!(client.tree([0_i32; 0], |a, b| a + b).result().is_err());
    });
}

async fn patient(ms: u64, table: Shared<Vec<f64>>) -> f64 {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    table.iter().sum()
}

pub(crate) fn async_functions_may_use_the_timers_of_tokio() {
    on_both(2, |client| {
        let table = client.scatter(vec![1.5; 20_000]);
        let started = Instant::now();
        let sum = client.submit(patient, (100, &table));
        assert_eq!(sum.result().unwrap(), 30_000.0);
        assert!(started.elapsed() >= Duration::from_millis(100));
        let naps = client.map(
            |ms: u64| async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                ms
            },
            0..20,
        );
        assert_eq!(client.gather(naps).unwrap(), (0..20).collect::<Vec<_>>());
    });
}

pub(crate) fn the_async_client_waits_without_blocking() {
    on_both(2, |client| {
        let client = rdask::aio::Client::from(client.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let squares = client.map(square, 0..100);
            let (all, one) = tokio::join!(client.gather(&squares), client.submit(square, (7,)));
            assert_eq!(all.unwrap(), (0..100).map(square).collect::<Vec<_>>());
            assert_eq!(one.unwrap(), 49);
            let mut completed = client.as_completed(squares);
            let mut count = 0;
            while let Some((position, value)) = completed.next().await {
                assert_eq!(value.unwrap(), square(position as i64));
                count += 1;
            }
            assert_eq!(count, 100);
            let failed = client.try_submit(|_: u8| Err::<u8, _>("no"), (0,)).await;
            assert_eq!(failed.unwrap_err().task().unwrap().message(), "no");
            let slow =
                client.submit(|ms: u64| std::thread::sleep(Duration::from_millis(ms)), (500,));
            let waited = client.wait_timeout(&slow, Duration::from_millis(1)).await.unwrap();
            assert_eq!(waited.not_done.len(), 1);
            client.wait(&slow).await.unwrap();
        });
    });
}

pub(crate) fn names_keep_results_until_they_are_attached() {
    on_both(2, |client| {
        let squares = client.map(square, 0..100);
        client.detach("squares", &squares).unwrap();
        drop(squares);
        let squares = client.attach::<i64>("squares").unwrap();
        assert_eq!(client.gather(&squares).unwrap()[99], 9801);
        drop(squares);
        wait_until("they are forgotten", || client.status().unwrap().done == 0);
        assert!(client.attach::<i64>("squares").is_err());
    });
}
