#[rdask::main]
async fn main() {}
