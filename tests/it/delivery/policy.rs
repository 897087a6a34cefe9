//! The policy of a destination on a real control plane: each field of `spec.delivery` does what its page says.

mod answers;
mod batch;
mod dead_letters;
mod dedup;
mod operational;
mod order;
