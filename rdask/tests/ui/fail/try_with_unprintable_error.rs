struct Quiet;

fn fails(x: f64) -> Result<f64, Quiet> {
    if x > 0.0 { Ok(x) } else { Err(Quiet) }
}

fn main() {
    let _ = rdask::Client::local().unwrap().try_submit(fails, (1.0,));
}
