//! What tests share: a control plane, namespaces of their own, and bounded waiting.
//!
//! Apart from [`Operator`], which starts the real binary, nothing here knows the product. A test that needs a cluster calls [`Cluster::shared`], makes a client and a
//! [`TempNamespace`], and waits with [`eventually`] or [`await_condition`]; nothing sleeps for a fixed time.

mod controlplane;
mod namespace;
mod operator;
mod receiver;
mod stage;
mod verify;
mod wait;

pub(crate) use controlplane::{Cluster, CommandOutput};
pub(crate) use namespace::TempNamespace;
pub(crate) use operator::{Operator, Settings, http_client};
pub(crate) use receiver::{Manner, Received, Receiver};
pub(crate) use stage::{PROJECT, Stage, condition};
pub(crate) use verify::{Judge, Verifier, folder as verifiers};
pub(crate) use wait::{await_condition, eventually};

use std::path::{Path, PathBuf};

/// The repository's root.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
pub(crate) fn repository_file(path: &str) -> PathBuf {
    repository().join(path)
}
