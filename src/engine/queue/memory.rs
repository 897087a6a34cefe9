//! [`Queue`](super::Queue) in memory, for tests.
