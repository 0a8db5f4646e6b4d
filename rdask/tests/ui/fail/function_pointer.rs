#[path = "../client.rs"]
mod client;

fn square(x: f64) -> f64 {
    x * x
}

fn main() {
    let f: fn(f64) -> f64 = square;
    let _ = client::Client.submit(f, (1.0,));
}
