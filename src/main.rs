//! The program: arguments to one subcommand.
fn main() {}
