fn square(x: f64) -> f64 {
    x * x
}

fn with(text: &rdask::Remote<String>) {
    let _ = rdask::Client::local().unwrap().submit(square, (text,));
    let _ = rdask::Client::local().unwrap().map(square, 0..10);
}

fn main() {}
