//! Moving a damaged file aside.
use super::Shared;
use super::fault::StoreError;
pub(super) fn replace(_shared: &Shared, damage: &str) -> Result<String, StoreError> {
    Err(StoreError::Down(damage.to_owned()))
}
