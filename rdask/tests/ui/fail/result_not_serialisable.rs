#[path = "../client.rs"]
mod client;

struct Point {
    x: f64,
}

fn main() {
    let _ = client::Client.map(|x: f64| Point { x }, [1.0]);
}
