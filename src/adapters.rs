//! The outside world: Kubernetes, HTTP in, HTTP and SMTP out. Adapters decide nothing that `domain` could.

pub mod http;
pub mod installation;
pub mod kube;
pub mod smtp;
pub mod webhook;
