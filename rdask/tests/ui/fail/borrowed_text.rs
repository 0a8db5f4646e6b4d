fn length(text: &str) -> usize {
    text.len()
}

fn main() {
    let _ = rdask::Client::local().unwrap().submit(length, ("text",));
}
