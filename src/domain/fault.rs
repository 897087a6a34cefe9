//! [`Fault`]: one thing wrong with a spec, where it is and what to do. [`Faults`] collects all of them at once.

use std::fmt;

/// Most faults that a message lists; the rest are counted.
const LISTED: usize = 16;

/// One thing wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Field path, such as `spec.webhook.headers[2].value`.
    pub path: String,
    /// What kind of fault; decides the condition's reason.
    pub kind: FaultKind,
    /// What is wrong and what to do; lower case, no full stop, no secret.
    pub message: String,
}

/// What kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The spec itself must change.
    Invalid,
    /// Something the spec refers to is missing; it heals when that appears.
    ReferenceMissing,
}

/// Every fault of one spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault of the spec itself.
    pub fn invalid(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault {
            path: path.into(),
            kind: FaultKind::Invalid,
            message: message.into(),
        });
    }

    /// Adds a missing reference.
    pub fn missing(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault {
            path: path.into(),
            kind: FaultKind::ReferenceMissing,
            message: message.into(),
        });
    }

    /// Adds every fault of another collection.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults, in the order of the spec's fields.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    /// The condition reason: `ReferenceMissing` only when nothing else is wrong.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        if self
            .0
            .iter()
            .all(|fault| fault.kind == FaultKind::ReferenceMissing)
        {
            crate::api::conditions::reason::REFERENCE_MISSING
        } else {
            crate::api::conditions::reason::INVALID_SPEC
        }
    }
}

/// A JSON pointer (RFC 6901) as a field path: `/a/0/b c` is `.a[0]["b c"]`.
#[must_use]
pub fn field_path(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1);
    parts
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .map(|part| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if part.is_empty() || !part.bytes().all(is_plain) {
                format!("[{part:?}]")
            } else if part.bytes().all(|byte| byte.is_ascii_digit()) {
                format!("[{part}]")
            } else {
                format!(".{part}")
            }
        })
        .collect()
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().take(LISTED).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", fault.path, fault.message)?;
        }
        if self.0.len() > LISTED {
            write!(f, "; and {} more", self.0.len() - LISTED)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_reads_as_a_field_path() {
        for (pointer, path) in [
            ("", ""),
            ("/a/0/b", ".a[0].b"),
            ("/b c/x.y", "[\"b c\"][\"x.y\"]"),
            ("/a~1b/~0", "[\"a/b\"][\"~\"]"),
            ("/", "[\"\"]"),
        ] {
            assert_eq!(field_path(pointer), path, "{pointer}");
        }
    }
}
