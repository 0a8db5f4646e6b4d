fn add(a: f64, b: f64) -> f64 {
    a + b
}

fn main() {
    let _ = rdask::Client::local().unwrap().submit(add, (1.0,));
    let _ = rdask::Client::local().unwrap().submit(f64::sqrt, 1.0);
}
