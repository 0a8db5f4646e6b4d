fn main() {
    let _ = rdask::Client::local().unwrap().map(|s: String| s.parse::<f64>(), ["1.5"]);
}
