#[path = "../client.rs"]
mod client;

struct Quiet;

fn fails(x: f64) -> Result<f64, Quiet> {
    if x > 0.0 { Ok(x) } else { Err(Quiet) }
}

fn main() {
    let _ = client::Client.try_submit(fails, (1.0,));
}
