//! [`Reviewer`]: the two questions about a token, and how the API server is asked.

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::domain::id::ObjectKey;
use crate::domain::secret::Secret;
use crate::engine::publish::{Access, Right};

/// Asks an API server.
#[async_trait]
pub(super) trait Reviewer: Send + Sync {
    async fn review(&self, token: &Secret<String>, key: &ObjectKey, right: Right) -> Access;
}

/// [`Reviewer`] over the API server.
pub(super) struct ApiServer(Client);

impl ApiServer {
    pub(super) const fn new(client: Client) -> Self {
        Self(client)
    }
}

#[async_trait]
impl Reviewer for ApiServer {
    async fn review(&self, token: &Secret<String>, key: &ObjectKey, right: Right) -> Access {
        match self.ask(token, key, right).await {
            Ok(access) => access,
            Err(error) => {
                tracing::warn!(
                    object.namespace = %key.namespace,
                    object.name = %key.name,
                    %error,
                    "a caller's token cannot be checked"
                );
                Access::Unavailable
            }
        }
    }
}

impl ApiServer {
    async fn ask(
        &self,
        token: &Secret<String>,
        key: &ObjectKey,
        right: Right,
    ) -> Result<Access, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.expose().clone()),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let review = Api::all(self.0.clone())
            .create(&PostParams::default(), &review)
            .await?;
        let status = review.status.unwrap_or_default();
        let user = match status.user {
            Some(user) if status.authenticated == Some(true) => user,
            _ => return Ok(Access::Unauthenticated),
        };
        let review = SubjectAccessReview {
            spec: question(user, key, right),
            ..SubjectAccessReview::default()
        };
        let review = Api::all(self.0.clone())
            .create(&PostParams::default(), &review)
            .await?;
        let allowed = review
            .status
            .is_some_and(|status| status.allowed && status.denied != Some(true));
        Ok(if allowed { Access::Allowed } else { Access::Denied })
    }
}

/// Has this user the right?
fn question(user: UserInfo, key: &ObjectKey, right: Right) -> SubjectAccessReviewSpec {
    let (verb, resource, subresource) = right.attributes();
    SubjectAccessReviewSpec {
        resource_attributes: Some(ResourceAttributes {
            group: Some(crate::api::GROUP.to_owned()),
            version: Some("*".to_owned()),
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            ..ResourceAttributes::default()
        }),
        user: user.username,
        uid: user.uid,
        groups: user.groups,
        extra: user.extra,
        ..SubjectAccessReviewSpec::default()
    }
}
