//! The keeper thread.
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::Shared;
use super::fault::StoreError;
use super::store::Store;

#[derive(Debug)]
pub(super) struct Trim {}

pub(super) fn run(shared: &Arc<Shared>, stop: &Receiver<()>) {
    let _ = (shared, stop.recv());
}
pub(super) fn trim(_store: &mut Store, _trim: &Trim) -> Result<u64, StoreError> {
    Ok(0)
}
pub(super) fn vacuum(_store: &mut Store, _pages: u32) -> Result<u64, StoreError> {
    Ok(0)
}
