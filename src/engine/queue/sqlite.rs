//! [`Queue`](super::Queue) in one `SQLite` file.
