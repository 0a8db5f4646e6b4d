//! Maps a plain function over numbers, on whatever cluster RDASK_SCHEDULER_FILE names.

use rdask::Client;

fn square(x: f64) -> f64 {
    x * x
}

fn main() -> rdask::Result<()> {
    rdask::init();
    let client = Client::from_env()?;
    let squares = client.map(square, (0..16).map(f64::from));
    println!("{:?}", client.gather(squares)?);
    Ok(())
}
