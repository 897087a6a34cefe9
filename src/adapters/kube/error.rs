//! What can go wrong while an object is reconciled. Faults of a spec are no errors: they are its status.

use std::time::Duration;

use crate::api::conditions::reason;

/// Why a reconcile ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server refused, or could not be asked.
    #[error("cannot {action}")]
    Request {
        /// What was tried, such as `read Secret "x"`.
        action: String,
        #[source]
        source: kube::Error,
    },
    /// The API server did not answer in time.
    #[error("the API server did not answer in time")]
    Timeout,
    /// The object's namespace is being deleted, and the object with it.
    #[error("the namespace is being deleted")]
    NamespaceEnding,
    /// The object has no name or uid, which the API server never serves.
    #[error("the object has no name, namespace or uid")]
    Nameless,
}

/// What to do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Try again, more and more rarely.
    Transient,
    /// Only a change of the object helps.
    Terminal,
}

/// First wait after an error; doubles with each further one …
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Error {
    pub(super) fn request(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| match &source {
            kube::Error::Api(status) if is_namespace_ending(status) => Self::NamespaceEnding,
            _ => Self::Request { action, source },
        }
    }

    pub(super) const fn class(&self) -> Class {
        match self {
            Self::Request { .. } | Self::Timeout => Class::Transient,
            Self::NamespaceEnding | Self::Nameless => Class::Terminal,
        }
    }

    /// The word for conditions, metrics and logs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Request {
                source: kube::Error::Api(status),
                ..
            } if status.is_forbidden() => "Forbidden",
            Self::Request {
                source: kube::Error::Api(status),
                ..
            } if status.is_conflict() => "Conflict",
            Self::Request {
                source: kube::Error::Api(_),
                ..
            } => "Refused",
            Self::Request { .. } | Self::Timeout => "Unavailable",
            Self::NamespaceEnding => "NamespaceEnding",
            Self::Nameless => reason::UNDECODABLE,
        }
    }

    /// Whether a right is missing, and not a quota or a policy in the way.
    pub(super) fn is_missing_right(&self) -> bool {
        matches!(self, Self::Request { source: kube::Error::Api(status), .. }
            if status.is_forbidden() && status.message.contains(" cannot "))
    }

    /// What a person is told in the object's status; `None` when the API server could not take it anyway.
    pub(super) fn told(&self) -> Option<String> {
        match self {
            Self::Request {
                action,
                source: kube::Error::Api(status),
            } if !status.is_conflict() => Some(format!("cannot {action}: {}", status.message)),
            _ => None,
        }
    }
}

pub(super) fn is_namespace_ending(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.is_forbidden()
        && causes
            .into_iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
}

/// How long to wait after that many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    FIRST_WAIT
        .saturating_mul(1 << failures.saturating_sub(1).min(6))
        .min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let waits: Vec<u64> = (1..=9).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
