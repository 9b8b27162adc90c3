//! The `tailcast` command: parse, dispatch, print the error, choose the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tailcast::cli::main()
}
