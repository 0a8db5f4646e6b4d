fn square(x: f64) -> f64 {
    x * x
}

fn main() {
    let f: fn(f64) -> f64 = square;
    let _ = rdask::Client::local().unwrap().submit(f, (1.0,));
}
