//! Values and decisions. Everything here is a pure function of its arguments: no clock, no randomness, no I/O.
//!
//! `now` is a [`jiff::Timestamp`], jitter a number in `[0, 1)`. What the engine or an adapter must decide, it asks here.

pub mod catalogue;
pub mod confidential;
pub mod dead_letter;
pub mod delivery;
pub mod delivery_log;
pub mod destination;
pub mod duration;
pub mod egress;
pub mod email;
pub mod event;
pub mod fault;
pub mod filter;
pub mod format;
#[cfg(test)]
mod fuzz;
pub mod gist;
pub mod health;
pub mod id;
pub mod notifications;
pub mod oauth2;
pub mod operation;
pub mod outcome;
pub mod ownership;
pub mod pattern;
pub mod policy;
pub mod project;
pub mod proxy;
pub mod reconcile_request;
pub mod replay_request;
pub mod request;
pub mod retry;
pub mod rotation;
pub mod schema;
pub mod secret;
pub mod shape;
pub mod signature;
pub mod size;
pub mod smtp;
pub mod status;
pub mod template;
pub mod test_send;
pub mod tls;
pub mod type_rules;
pub mod window;
