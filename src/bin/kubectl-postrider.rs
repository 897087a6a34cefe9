//! `kubectl postrider`: checks manifests, shows requests and checks signatures on the user's own machine.

use std::process::ExitCode;

use clap::Parser as _;
use postrider::cli::plugin::{self, Plugin};

fn main() -> ExitCode {
    plugin::run(&Plugin::parse())
}
