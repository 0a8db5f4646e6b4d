//! The rdask command.
fn main() {}
