//! The `sticky-lb` program: all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sticky_lb::internals::cli::main()
}
