//! The operator's program.

use std::process::ExitCode;

use clap::Parser as _;
use postrider::cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => postrider::app::run(*args),
        Command::Crds(args) => postrider::app::crds(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            postrider::app::complain(&error);
            ExitCode::FAILURE
        }
    }
}
