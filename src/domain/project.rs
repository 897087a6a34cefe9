//! What an `EventProject` adds to its events, and where events of a project may be published.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{ObjectKey, Uid};
use super::secret::Secret;
use super::type_rules::TypeRules;
use crate::api::v1alpha1::EventProject;
use crate::api::v1alpha1::event_project::IntOrString;

/// The facts that every event of a project carries, as they were when the event was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProjectFacts {
    /// uid of the `EventProject`: the space in which event ids are unique.
    pub uid: Uid,
    /// `project.id` in payloads.
    pub id: Arc<str>,
    /// `project.name` in payloads.
    pub name: Arc<str>,
    /// `environment`, when the project names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Arc<str>>,
    /// `account_id`: integer or text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// `account_name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_name: Option<Arc<str>>,
}

/// An account's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AccountId {
    /// An integer stays one.
    Number(i64),
    /// Text stays text.
    Text(Arc<str>),
}

/// A project that events can be published to.
#[derive(Clone, Debug)]
pub struct Project {
    /// Namespace and name.
    pub key: ObjectKey,
    /// What its events carry.
    pub facts: Arc<ProjectFacts>,
    /// The publish token.
    pub token: Token,
    /// What its events must look like.
    pub types: Arc<TypeRules>,
}

/// The publish token of a project, as far as it is known.
#[derive(Clone, Debug, Default)]
pub enum Token {
    /// What a publisher must send.
    Known(Secret<String>),
    /// Its Secret was not read yet, could not be, or is no good. A publisher may well send the right one, so none is
    /// called wrong; only Kubernetes callers may publish.
    #[default]
    Unknown,
}

impl Token {
    /// The token, when it is known.
    #[must_use]
    pub const fn known(&self) -> Option<&Secret<String>> {
        match self {
            Self::Known(token) => Some(token),
            Self::Unknown => None,
        }
    }
}

impl ProjectFacts {
    /// The facts of an object; `None` when it has no name or uid, which the API server never serves.
    #[must_use]
    pub fn of(object: &EventProject) -> Option<Self> {
        let name = object.metadata.name.as_deref()?;
        let uid = object.metadata.uid.as_deref()?;
        let account = object.spec.account.as_ref();
        Some(Self {
            uid: Uid::new(uid),
            id: object.spec.project_id.as_deref().unwrap_or(uid).into(),
            name: object.spec.display_name.as_deref().unwrap_or(name).into(),
            environment: object.spec.environment.as_deref().map(Into::into),
            account_id: account
                .and_then(|account| account.id.as_ref())
                .map(|id| match id {
                    IntOrString::Int(number) => AccountId::Number((*number).into()),
                    IntOrString::String(text) => AccountId::Text(text.as_str().into()),
                }),
            account_name: account
                .and_then(|account| account.name.as_deref())
                .map(Into::into),
        })
    }
}
