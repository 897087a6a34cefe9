//! A file of SQLite, and what can go wrong with it.
