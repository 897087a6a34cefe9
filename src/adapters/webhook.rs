//! [`Transport`](crate::engine::transport::Transport) over reqwest, behind the egress guard.
