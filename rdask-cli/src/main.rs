//! The `rdask` command. See [`args`] for what it understands, [`commands`] for what it does.

mod address;
mod args;
mod commands;
mod explanation;
mod mistakes;
mod outcome;
mod output;
mod quantity;
mod record;

fn main() -> std::process::ExitCode {
    // Workers may start this very binary as the program of `rdask submit`.
    rdask::init();
    commands::main(std::env::args_os().collect())
}
