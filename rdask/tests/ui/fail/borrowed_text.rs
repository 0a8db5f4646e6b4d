#[path = "../client.rs"]
mod client;

fn length(text: &str) -> usize {
    text.len()
}

fn main() {
    let _ = client::Client.submit(length, ("text",));
}
