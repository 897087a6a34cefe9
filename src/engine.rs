//! Queue, lanes and delivery: the running part of Postrider, without Kubernetes and HTTP.
//!
//! It knows the world through four ports: [`queue::Queue`], [`queue::HealthStore`], [`transport::Transport`],
//! and [`clock::Clock`]. What is decided is decided in `domain`.

pub mod clock;
pub mod directory;
pub mod publish;
pub mod queue;
pub mod transport;
pub mod view;
