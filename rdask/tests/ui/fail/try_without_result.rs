fn square(x: f64) -> f64 {
    x * x
}

fn main() {
    let _ = rdask::Client::local().unwrap().try_submit(square, (1.0,));
}
