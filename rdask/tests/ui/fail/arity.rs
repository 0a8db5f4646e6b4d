#[path = "../client.rs"]
mod client;

fn add(a: f64, b: f64) -> f64 {
    a + b
}

fn main() {
    let _ = client::Client.submit(add, (1.0,));
    let _ = client::Client.submit(f64::sqrt, 1.0);
}
