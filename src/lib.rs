//! Postrider carries a platform's events to webhooks, configured by Kubernetes custom resources.
//!
//! The layers, each of which knows only those above it in this list (a test reads the imports):
//!
//! 1. [`api`]: the custom resources' types. No client, no async.
//! 2. [`domain`]: values and decisions. Pure: time and randomness are arguments.
//! 3. [`engine`]: queue, lanes and delivery. Knows the world through its ports only.
//! 4. [`adapters`]: Kubernetes, HTTP servers, the HTTP client.
//! 5. [`cli`] and [`app`]: settings and wiring.
//!
//! An event's way: publish → one durable write of event and deliveries → 202 → the destination's lane →
//! render and sign → send → decide → settle in one durable write.

pub mod adapters;
pub mod api;
pub mod app;
pub mod cli;
pub mod domain;
pub mod engine;
pub mod telemetry;
