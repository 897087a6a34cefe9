//! The outside world: Kubernetes, HTTP in, HTTP out. Adapters decide nothing that `domain` could.

pub mod http;
pub mod kube;
pub mod webhook;
