struct Point {
    x: f64,
}

fn main() {
    let _ = rdask::Client::local().unwrap().map(|x: f64| Point { x }, [1.0]);
}
