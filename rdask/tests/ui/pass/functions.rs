// Every function that can be submitted is in the table of a program that users build.

use rdask::function::{entries, entry};
use rdask::task::submission::{map, map_with, submit, tree, try_map};
use rdask::{Remote, Remotes, Shared};

fn add(a: f64, b: &f64) -> f64 {
    a + b
}

async fn later(v: Shared<Vec<u8>>) -> usize {
    v.len()
}

// Never called: what it submits is in the table all the same.
fn on_handles(one: Remote<f64>, many: &Remotes<f64>, owned: Remotes<f64>, list: Vec<Remote<f64>>) {
    submit(add, (&one, 2.0)).unwrap();
    map(|x| x * x, many).unwrap();
    map(|x| x.sqrt(), owned).unwrap();
    map(f64::sqrt, &list).unwrap();
    map_with(|x: f64, y: &f64| x * y, list, &one).unwrap();
    tree(many, |a: f64, b| a + b).unwrap();
    submit(add, (one, 2.0)).unwrap();
}

fn main() {
    let keys = [
        submit(add, (1.0, 2.0)).unwrap().function.key,
        submit(later, (vec![1],)).unwrap().function.key,
        map(|x| x * x, vec![1.0]).unwrap().function.key,
        map(|x: u8| x + 1, 0..3).unwrap().function.key,
        map(f64::sqrt, [4.0]).unwrap().function.key,
        try_map(|s: String| s.parse::<f64>(), ["1.5"]).unwrap().function.key,
        tree([1, 2], |a: i32, b| a + b).unwrap().function.key,
    ];
    for key in keys {
        assert_eq!(entry(key).unwrap().key, key);
    }
    assert!(entry(1).is_none());
    assert!(entries().len() > keys.len());
    if std::env::args().len() > 100 {
        std::hint::black_box(on_handles as fn(_, &_, _, _));
    }
}
