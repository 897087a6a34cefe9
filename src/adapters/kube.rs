//! Controllers: watch, dereference, validate, publish to the directory, update status.

pub mod access;
