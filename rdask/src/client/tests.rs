//! The client and its handles, end to end in one process: the scheduler is a fake that runs
//! functions through the program's own table, one after the other.

use std::time::Duration;

use rdask_core::message::{FromClient, TaskStatus};

use super::*;
use crate::{FailureKind, Remote};

mod fake;

use fake::{Fake, fake};

fn square(x: f64) -> f64 {
    x * x
}

fn add(a: f64, b: f64) -> f64 {
    a + b
}

#[expect(clippy::ptr_arg, reason = "a parameter refers to what a task made")]
fn total(numbers: &Vec<f64>, scale: f64) -> f64 {
    numbers.iter().sum::<f64>() * scale
}

#[test]
fn maps_and_gathers_in_order() {
    let (client, fake) = fake();
    let squares = client.map(square, (0..16).map(f64::from));
    let expected: Vec<f64> = (0..16).map(|x| f64::from(x * x)).collect();
    assert_eq!(client.gather(&squares).unwrap(), expected);
    assert_eq!(squares.len(), 16);
    let halves = client.map(|x| x / 2.0, &squares);
    assert_eq!(halves[3].result().unwrap(), 4.5);
    drop((squares, halves, client));
    let said = fake.end();
    let submits = |message: &&FromClient| matches!(message, FromClient::SubmitArray { .. });
    assert_eq!(said.iter().filter(submits).count(), 2);
    assert_eq!(Fake::released(&said), 32);
}

#[test]
fn submits_chains_and_mixes_values_with_results() {
    let (client, _fake) = fake();
    let four = client.submit(square, (2.0,));
    let five = client.submit(add, (&four, 1.0));
    let nine = client.submit(add, (five, &four));
    assert_eq!(nine.result().unwrap(), 9.0);
    assert_eq!(client.gather([&four, &nine, &four]).unwrap(), [4.0, 9.0, 4.0]);
    assert_eq!(four.status().unwrap(), TaskStatus::Finished);
}

#[test]
fn long_arguments_and_results_travel_beside() {
    let (client, fake) = fake();
    let numbers = vec![1.0; 100_000];
    let sum = client.submit(total, (numbers, 2.0));
    assert_eq!(sum.result().unwrap(), 200_000.0);
    let long = client.submit(|n: usize| vec![7u64; n], (50_000,));
    assert_eq!(long.result().unwrap(), vec![7; 50_000]);
    let parts = client.map(|n: usize| vec![n as u8; 2000], 0..100);
    for (position, part) in client.as_completed(&parts) {
        assert_eq!(part.unwrap(), vec![position as u8; 2000]);
    }
    let all = client.gather(parts).unwrap();
    assert_eq!(all[99], vec![99; 2000]);
    drop((sum, long, client));
    let said = fake.end();
    let scatters = |message: &&FromClient| matches!(message, FromClient::Scatter { .. });
    assert_eq!(said.iter().filter(scatters).count(), 1);
}

#[test]
fn maps_over_short_and_long_values_alike() {
    let (client, _fake) = fake();
    let lens = [3, 20_000, 20_001, 1, 2, 30_000];
    let values = lens.map(|len| vec![1u64; len]);
    let sums = client.map(|v: Vec<u64>| v.iter().sum::<u64>(), values);
    assert_eq!(client.gather(sums).unwrap(), lens.map(|len| len as u64));
}

#[test]
fn maps_over_handles_from_anywhere() {
    let (client, _fake) = fake();
    let a = client.map(square, [1.0, 2.0, 3.0]);
    let b = client.submit(square, (4.0,));
    let mixed: Vec<Remote<f64>> = vec![a.get(2).unwrap(), b, a.get(0).unwrap()];
    drop(a);
    let next = client.map_with(|x, k: &f64| x * k, mixed, 10.0);
    assert_eq!(client.gather(next).unwrap(), [90.0, 160.0, 10.0]);
}

#[test]
fn shares_what_closures_would_capture() {
    let (client, _fake) = fake();
    let table = client.scatter(vec![10.0, 20.0, 30.0]);
    let rows = client.map_with(|i: usize, t: &Vec<f64>| t[i], [2, 0], &table);
    assert_eq!(client.gather(rows).unwrap(), [30.0, 10.0]);
    assert_eq!(table.result().unwrap(), [10.0, 20.0, 30.0]);
}

#[test]
fn vectors_are_fed_by_many_results() {
    let (client, _fake) = fake();
    let squares = client.map(square, [1.0, 2.0, 3.0]);
    let by_reference = client.submit(total, (&squares, 2.0));
    assert_eq!(by_reference.result().unwrap(), 28.0);
    let singles = vec![squares.get(2).unwrap(), client.submit(square, (5.0,))];
    let listed = client.submit(|all: Vec<f64>| all, (&singles,));
    assert_eq!(listed.result().unwrap(), [9.0, 25.0]);
    let looked = client.map_with(|i: usize, all: &Vec<f64>| all[i], [1, 0], &singles);
    assert_eq!(client.gather(looked).unwrap(), [25.0, 9.0]);
    let empty = client.submit(|all: Vec<f64>| all.len(), (squares.slice(..0),));
    assert_eq!(empty.result().unwrap(), 0);
    let bad = client.map(|x: Unencodable| x.0, [Unencodable(13)]);
    assert!(client.submit(|all: Vec<u32>| all, (bad,)).result().is_err());
}

#[test]
fn trees_keep_order_over_any_number_of_items() {
    let (client, _fake) = fake();
    for n in [1, 2, 7, 8, 9, 64, 65, 700] {
        let expected: String = (0..n).map(|i| format!("{i} ")).collect();
        let words = client.map(|i: u32| format!("{i} "), 0..n);
        let joined = client.tree(&words, |a, b| a + &b);
        assert_eq!(joined.result().unwrap(), expected);
        let values = (0..n).map(|i| format!("{i} "));
        let joined = client.tree(values, |a: String, b: String| a + &b);
        assert_eq!(joined.result().unwrap(), expected);
        let singles: Vec<_> =
            (0..n).map(|i| client.submit(|i: u32| format!("{i} "), (i,))).collect();
        let joined = client.tree(singles, |a, b| a + &b);
        assert_eq!(joined.result().unwrap(), expected);
    }
    let nothing = client.tree([0u8; 0], |a, b| a + b).result();
    assert!(nothing.unwrap_err().to_string().contains("at least one item"));
}

#[test]
fn failures_reach_dependents_and_nobody_else() {
    let (client, _fake) = fake();
    let numbers = client.try_map(|s: String| s.parse::<f64>(), ["1.5", "one", "2"]);
    let doubled = client.map(|x| x * 2.0, &numbers);
    assert_eq!(doubled[0].result().unwrap(), 3.0);
    let error = doubled[1].result().unwrap_err();
    let task = error.task().unwrap();
    assert_eq!(task.kind(), FailureKind::Returned);
    assert_eq!(task.message(), "invalid float literal");
    assert_eq!(task.origin(), numbers[1].id());
    assert!(client.gather(&doubled).is_err());
    let panic = client.submit(|x: u32| assert_eq!(x, 2, "not two"), (1,));
    let error = panic.result().unwrap_err();
    assert_eq!(error.task().unwrap().kind(), FailureKind::Panicked);
    assert_eq!(panic.status().unwrap(), TaskStatus::Error);
    client.wait(&doubled).unwrap();
}

#[derive(Debug, serde::Deserialize)]
struct Unencodable(u32);

impl serde::Serialize for Unencodable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 13 {
            return Err(serde::ser::Error::custom("bad luck"));
        }
        serializer.serialize_u32(self.0)
    }
}

#[test]
fn what_does_not_encode_fails_alone() {
    let (client, fake) = fake();
    let plus = client.map(|x: Unencodable| x.0 + 1, [12, 13, 14].map(Unencodable));
    let next = client.map(|x| x * 10, &plus);
    assert_eq!(next[0].result().unwrap(), 130);
    assert_eq!(next[2].result().unwrap(), 150);
    let error = next[1].result().unwrap_err();
    assert_eq!(error.task().unwrap().kind(), FailureKind::Unrunnable);
    let sum = client.tree(next, |a, b| a + b);
    assert_eq!(sum.result().unwrap_err().to_string(), error.to_string());
    let one = client.submit(|x: Unencodable| x.0, (Unencodable(13),));
    assert!(one.result().is_err());
    assert!(client.scatter(Unencodable(13)).result().is_err());
    drop((client, plus, sum, one));
    fake.end();
}

#[test]
fn timeouts_and_cancels() {
    let (client, _fake) = fake();
    let never = client.options().name("never");
    let slow = never.map(square, [1.0, 2.0]);
    let quick = client.map(square, [3.0]);
    let both: Vec<Remote<f64>> = slow.iter().chain(&quick).cloned().collect();
    client.wait(&quick).unwrap();
    let waited = client.wait_timeout(&both, Duration::from_millis(20)).unwrap();
    assert_eq!((waited.done.len(), waited.not_done.len()), (1, 2));
    assert!(!slow[0].wait_timeout(Duration::from_millis(1)).unwrap());
    assert_eq!(slow[0].status().unwrap(), TaskStatus::Pending);
    slow[0].cancel();
    assert!(slow[0].result().unwrap_err().is_cancelled());
    assert_eq!(slow[0].status().unwrap(), TaskStatus::Cancelled);
    client.cancel(waited.not_done);
    assert!(slow[1].result().unwrap_err().is_cancelled());
}

#[test]
fn completes_give_every_position_once() {
    let (client, _fake) = fake();
    let squares = client.map(square, (0..1000).map(f64::from));
    let mut twice: Vec<Remote<f64>> = squares.into_iter().collect();
    twice.extend(twice[..10].to_vec());
    let mut seen = vec![0; twice.len()];
    let completed = client.as_completed(twice);
    assert_eq!(completed.len(), 1010);
    for (position, result) in completed {
        seen[position] += 1;
        let x = (position % 1000) as f64;
        assert_eq!(result.unwrap(), x * x);
    }
    assert_eq!(seen, vec![1; 1010]);
    let nothing: Vec<Remote<f64>> = Vec::new();
    assert_eq!(client.as_completed(nothing).count(), 0);
}

#[test]
fn slices_keep_only_their_part_alive() {
    let (client, fake) = fake();
    let squares = client.map(square, (0..100).map(f64::from));
    let part = squares.slice(10..20);
    assert_eq!(part.slice(..=0)[0].id(), squares[10].id());
    assert_eq!(squares.slice(100..).len(), 0);
    drop(squares);
    assert_eq!(client.gather(&part).unwrap()[9], 361.0);
    let mut rest = part.into_iter();
    let first = rest.next().unwrap();
    drop(rest);
    assert_eq!(first.result().unwrap(), 100.0);
    drop((first, client));
    assert_eq!(Fake::released(&fake.end()), 100);
}

#[test]
fn detached_results_come_back() {
    let (client, _fake) = fake();
    client.detach("squares", client.map(square, [2.0, 3.0])).unwrap();
    let squares = client.attach::<f64>("squares").unwrap();
    assert_eq!(client.gather(squares).unwrap(), [4.0, 9.0]);
    let error = client.attach::<f64>("cubes").unwrap_err();
    assert!(error.to_string().contains("\"cubes\""));
}

#[test]
fn a_lost_scheduler_is_an_error_for_all_who_wait() {
    let (client, fake) = fake();
    let slow = client.options().name("never").submit(square, (1.0,));
    let waiting = std::thread::spawn({
        let slow = slow.clone();
        move || slow.result()
    });
    fake.die();
    let error = waiting.join().unwrap().unwrap_err();
    assert!(matches!(error, crate::Error::Connection(_)), "{error}");
    assert!(slow.result().is_err());
    assert!(client.attach::<f64>("x").is_err());
}

#[test]
fn async_programs_await_handles() {
    let (client, _fake) = fake();
    let client = crate::aio::Client::from(client);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let root = client.submit(f64::sqrt, (16.0,));
        assert_eq!((&root).await.unwrap(), 4.0);
        assert_eq!(root.await.unwrap(), 4.0);
        let later = client.map(|x: u32| async move { x + 1 }, [1, 2]);
        assert_eq!(client.gather(&later).await.unwrap(), [2, 3]);
        let mut completed = client.as_completed(later);
        assert!(completed.next().await.is_some());
        assert!(completed.next().await.is_some());
        assert!(completed.next().await.is_none());
        let never = client.options().name("never").submit(f64::sqrt, (16.0,));
        let waited = client.wait_timeout(&never, Duration::from_millis(5)).await;
        assert_eq!(waited.unwrap().not_done.len(), 1);
        let blocked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| never.wait()));
        let payload = blocked.unwrap_err();
        let text = payload.downcast_ref::<&str>().unwrap();
        assert!(text.contains("use rdask::aio"), "{text}");
    });
}

#[test]
#[should_panic(expected = "belongs to another client")]
fn handles_of_other_clients_are_refused() {
    let ((one, _one), (other, _other)) = (fake(), fake());
    let square_of_one = one.submit(square, (1.0,));
    let _ = other.submit(square, (square_of_one,));
}

#[test]
#[should_panic(expected = "belong to different clients")]
fn handles_of_two_clients_are_not_gathered_together() {
    let ((one, _one), (other, _other)) = (fake(), fake());
    let both = [one.submit(square, (1.0,)), other.submit(square, (2.0,))];
    let _ = one.gather(&both);
}
