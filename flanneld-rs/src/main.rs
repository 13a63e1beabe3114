//! The node daemon `flanneld`: arguments and environment in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    flanneld_rs::cli::main(std::env::args_os(), &|name| std::env::var_os(name))
}
