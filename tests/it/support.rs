//! What tests share: a control plane, namespaces of their own, and bounded waiting.
//!
//! Apart from [`Operator`], which starts the real binary, nothing here knows more of the product than its objects. A
//! test that needs a cluster calls [`Cluster::shared`], makes a client and a [`TempNamespace`], and waits with
//! [`eventually`], [`until`] or [`await_condition`]; nothing sleeps for a fixed time.

mod authority;
mod controlplane;
mod namespace;
mod operator;
mod program;
mod receiver;
mod stage;
mod verify;
mod wait;

pub(crate) use authority::{Authority, Pair};
pub(crate) use controlplane::{Cluster, CommandOutput};
pub(crate) use namespace::TempNamespace;
pub(crate) use operator::{Operator, Settings, http_client};
pub(crate) use program::Program;
pub(crate) use receiver::{Manner, Received, Receiver};
pub(crate) use stage::{PROJECT, Stage, condition};
pub(crate) use verify::{Judge, Verifier, folder as verifiers};
pub(crate) use wait::{await_condition, eventually, until};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider::domain::id::Uid;
use postrider::domain::project::ProjectFacts;

/// The facts of a project whose manifest states nothing but its name.
pub(crate) fn bare_project(uid: &str, name: &str) -> Arc<ProjectFacts> {
    Arc::new(ProjectFacts {
        uid: Uid::new(uid),
        id: uid.into(),
        name: name.into(),
        environment: None,
        account_id: None,
        account_name: None,
    })
}

/// The repository's root.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
pub(crate) fn repository_file(path: &str) -> PathBuf {
    repository().join(path)
}
