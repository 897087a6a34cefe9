//! The tests that need more than one module: a real control plane, the real binary, or the repository itself.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test reports by panicking"
)]

mod catalogue;
mod chart;
mod cluster;
mod crash;
mod crds;
mod delivery;
mod docs;
mod examples;
mod faults;
mod formats;
mod kstatus;
mod mail;
mod plugin;
mod publish;
mod queue;
mod reconcile;
#[allow(dead_code, unused_imports, reason = "no test uses all of the support")]
mod support;
mod tidy;
mod transport;
mod verifiers;
