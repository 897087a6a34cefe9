//! [`Secret`]: a value that does not show itself.
//!
//! `Debug` is redacted, there is no `Display` and no `Serialize`, memory is zeroed on drop. The only way in is
//! [`Secret::expose`], which is easy to find in a review.

use std::fmt;

use zeroize::Zeroize;

/// A secret value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; never log, format or store what this returns.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
