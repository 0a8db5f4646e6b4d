#[path = "../client.rs"]
mod client;

fn main() {
    let _ = client::Client.map(|s: String| s.parse::<f64>(), ["1.5"]);
}
