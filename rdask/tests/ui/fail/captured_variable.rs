#[path = "../client.rs"]
mod client;

fn main() {
    let k = 3.0;
    let _ = client::Client.map(move |x: f64| k * x, [1.0, 2.0]);
}
