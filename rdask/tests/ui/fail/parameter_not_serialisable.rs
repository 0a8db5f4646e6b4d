#[path = "../client.rs"]
mod client;

struct Point {
    x: f64,
}

fn x_of(p: Point) -> f64 {
    p.x
}

fn main() {
    let _ = client::Client.submit(x_of, (Point { x: 1.0 },));
}
