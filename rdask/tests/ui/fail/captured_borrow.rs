fn main() {
    let k = 3.0;
    let _ = rdask::Client::local().unwrap().map(|x: f64| k * x, [1.0, 2.0]);
}
