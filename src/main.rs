//! The program: arguments to one subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    match sideline::cli::main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sideline: {error:#}");
            ExitCode::from(3)
        }
    }
}
