#[path = "../client.rs"]
mod client;

fn square(x: f64) -> f64 {
    x * x
}

fn with(text: &rdask::Remote<String>) {
    let _ = client::Client.submit(square, (text,));
    let _ = client::Client.map(square, 0..10);
}

fn main() {}
