//! HTTP servers: publishing and administration.
//!
//! Owns both listeners' connections, their bounds, and the publish API: its routes, authentication, answers and
//! OpenAPI document. Both servers run on one hardened base (`server`, `connection`).
//!
//! Invariants: every wait on a client has a deadline and every buffer a bound ([`HttpSettings`] lists them all); a
//! body is read only after its sender is authenticated; no answer repeats what a client sent.
//!
//! Leaves to others: what a body means (`domain::event`), what becomes of an event (`engine::publish`), who a
//! Kubernetes token belongs to (`kube::access`). TLS and HTTP routing by host are the cluster's.

mod admin;
mod auth;
mod body;
mod connection;
mod deliveries;
mod limits;
mod metrics;
mod parsing;
mod problem;
mod publish;
mod server;

pub use admin::{AdminServer, AdminState, Readiness};
pub use limits::{HttpSettings, Limit};
pub use metrics::HttpMetrics;
pub use publish::{OPENAPI, PublishServer, PublishState};
