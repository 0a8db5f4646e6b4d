#[path = "../client.rs"]
mod client;

fn square(x: f64) -> f64 {
    x * x
}

fn main() {
    let _ = client::Client.try_submit(square, (1.0,));
}
