//! What can be a task function.

use super::*;

fn square(x: f64) -> f64 {
    x * x
}

fn generic<T: std::ops::Mul<Output = T> + Copy>(x: T) -> T {
    x * x
}

#[derive(Serialize, Deserialize, Clone, Copy)]
struct Meters(f64);

impl Meters {
    fn in_feet(self) -> f64 {
        self.0 * 3.0
    }

    fn longer(&self, other: &Self) -> bool {
        self.0 > other.0
    }
}

async fn later(x: u32) -> u32 {
    tokio::task::yield_now().await;
    x + 1
}

#[test]
fn function_items() {
    assert_eq!(all::<f64>(&run_many(map(square, [1.0, 2.0, 3.0]).unwrap())), [1.0, 4.0, 9.0]);
    assert_eq!(only(&run_one(submit(square, (4.0,)).unwrap())), Ok(16.0));
}

#[test]
fn methods_by_value_and_by_reference() {
    assert_eq!(all::<f64>(&run_many(map(Meters::in_feet, [Meters(2.0)]).unwrap())), [6.0]);
    let longer = submit(Meters::longer, (Meters(2.0), Meters(1.0))).unwrap();
    assert_eq!(only(&run_one(longer)), Ok(true));
}

#[test]
fn functions_of_the_standard_library() {
    assert_eq!(all::<f64>(&run_many(map(f64::sqrt, [4.0, 9.0]).unwrap())), [2.0, 3.0]);
    assert_eq!(only(&run_one(submit(f64::powi, (2.0, 10)).unwrap())), Ok(1024.0));
}

#[test]
fn generic_instances_are_different_functions() {
    let floats = map(generic, vec![1.5f64]).unwrap();
    let integers = map(generic, vec![3u8]).unwrap();
    assert_ne!(floats.function.key, integers.function.key);
    assert_eq!(all::<f64>(&run_many(floats)), [2.25]);
    assert_eq!(all::<u8>(&run_many(integers)), [9]);
    assert_eq!(only(&run_one(submit(generic::<i32>, (-3,)).unwrap())), Ok(9));
}

#[test]
fn closures_infer_their_parameters_in_map() {
    assert_eq!(all::<f64>(&run_many(map(|x| x * x, vec![1.0]).unwrap())), [1.0]);
    assert_eq!(all::<i32>(&run_many(map(|x| x + 1, 0..3).unwrap())), [1, 2, 3]);
    assert_eq!(all::<usize>(&run_many(map(|s: String| s.len(), ["ab", "c"]).unwrap())), [2, 1]);
    let product = submit(|a: f64, b: &f64| a * b, (2.0, 3.0)).unwrap();
    assert_eq!(only(&run_one(product)), Ok(6.0));
}

#[test]
fn closures_of_one_place_are_told_apart() {
    let one = map(|x: u8| x + 1, [1]).unwrap();
    let two = map(|x: u8| x + 2, [1]).unwrap();
    assert_ne!(one.function.key, two.function.key);
    assert_eq!(all::<u8>(&run_many(one)), [2]);
    assert_eq!(all::<u8>(&run_many(two)), [3]);
}

#[test]
fn no_parameters_and_six() {
    fn none() -> &'static str {
        "nothing"
    }
    fn six(a: u8, b: &u16, c: u32, d: &String, e: f64, f: Vec<u8>) -> String {
        format!("{a} {b} {c} {d} {e} {f:?}")
    }
    let submitted = submit(|| none().to_owned(), ()).unwrap();
    assert_eq!(only::<String>(&run_one(submitted)).unwrap(), "nothing");
    let submitted = submit(six, (1, 2, 3, "four", 5.5, vec![6, 7])).unwrap();
    assert_eq!(only::<String>(&run_one(submitted)).unwrap(), "1 2 3 four 5.5 [6, 7]");
}

#[test]
fn async_functions_run_without_a_runtime() {
    assert_eq!(all::<u32>(&run_many(map(later, [1, 2]).unwrap())), [2, 3]);
    let shared = |t: Shared<Table>| async move { t.rows.len() };
    assert_eq!(only(&run_one(submit(shared, (table(),)).unwrap())), Ok(3usize));
}

#[test]
fn async_functions_run_in_the_runtime_that_their_slot_entered() {
    let sleep = |ms: u64| async move {
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        ms
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let handle = runtime.handle().clone();
    let (done, wait) = tokio::sync::oneshot::channel::<()>();
    // Timers go only while someone drives the runtime.
    let driver = std::thread::spawn(move || runtime.block_on(wait));
    {
        let _entered = handle.enter();
        assert_eq!(all::<u64>(&run_many(map(sleep, [1, 2]).unwrap())), [1, 2]);
    }
    done.send(()).unwrap();
    driver.join().unwrap().unwrap();
}

#[test]
fn a_shared_argument() {
    let scaled = map_with(|x, (k, b): &(f64, f64)| k * x + b, [1.0, 2.0], (3.0, 0.5)).unwrap();
    assert!(matches!(scaled.shared, Some(Dep::Value(_))));
    assert_eq!(all::<f64>(&run_many(scaled)), [3.5, 6.5]);
    let looked = map_with(|i: usize, t: &Vec<f64>| t[i], [2, 0], vec![10.0, 20.0, 30.0]).unwrap();
    assert_eq!(all::<f64>(&run_many(looked)), [30.0, 10.0]);
}

#[test]
fn folds_in_order() {
    let leaves = tree(["a", "b", "c"].map(String::from), |a: String, b| a + &b).unwrap();
    let task = |count| Task {
        inline: leaves.inline[..leaves.ends[count - 1] as usize].to_vec(),
        params: vec![ParamSource::Inline; count],
        inputs: Vec::new(),
    };
    let folded = all::<String>(&run(leaves.function, vec![task(3), task(1), task(2)]));
    assert_eq!(folded, ["abc", "a", "ab"]);
}

#[test]
fn names_are_paths() {
    assert!((map(square, [1.0]).unwrap().function.name)().ends_with("shapes::square"));
}
