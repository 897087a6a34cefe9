//! Command line and environment.

pub mod manifests;
