//! [`Signer`]: signs exactly the bytes that are sent.

/// Signs requests.
#[derive(Clone, Debug)]
pub enum Signer {
    /// No signature.
    None,
}
