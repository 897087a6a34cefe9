//! Who may publish to a project.
//!
//! Owns reading the `Authorization` header and the order of questions: the project's own token, then Kubernetes.
//! Invariants: tokens are compared by their digests in constant time; an unknown project and a wrong token give the
//! same answer after the same work; whether a project exists is told only to a Kubernetes caller who may publish to
//! a project of that name. The one exception: while a project's token is not known, or the project itself is not
//! understood, no token is called wrong there, because a publisher that is told 401 gives up with the right one; it is
//! told to come again instead.
//!
//! Leaves to others: asking Kubernetes (`kube::access`, behind [`Authorizer`]).

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::{Kind, Problem};
use crate::api::GROUP;
use crate::domain::id::ObjectKey;
use crate::domain::project::{Project, Token};
use crate::domain::secret::Secret;
use crate::engine::publish::{Access, Authorizer, Publisher, Right};

/// What the publish tokens of projects begin with: none of them is a caller's own.
const TOKEN_PREFIX: &str = "ptr_";
/// The longest token that is looked at. Service-account tokens have about 1,200 characters.
const MAX_TOKEN: usize = 8 * 1024;

/// The project, when the caller may publish to it.
pub(super) async fn authenticate(
    headers: &HeaderMap,
    key: &ObjectKey,
    publisher: &dyn Publisher,
    authorizer: &dyn Authorizer,
) -> Result<Arc<Project>, Problem> {
    let Some(token) = bearer(headers) else {
        return Err(Problem::new(
            Kind::Unauthorized,
            "send `Authorization: Bearer <token>`",
        ));
    };
    let project = publisher.project(key);
    // Without a project or token the comparison is made all the same, with a text that no token is.
    let expected = project
        .as_ref()
        .and_then(|project| project.token.known())
        .map(|token| token.expose().as_str());
    if same(token, expected.unwrap_or_default())
        && let Some(project) = &project
    {
        return Ok(Arc::clone(project));
    }
    let unknown = project
        .as_ref()
        .is_some_and(|project| matches!(project.token, Token::Unknown));
    let unusable = project.is_none() && publisher.is_unusable(key);
    let come_again = || {
        let detail = "the project is not usable now; its status says why";
        Problem::new(Kind::Unavailable, detail).retry_after(30)
    };
    let wrong = || {
        if unusable {
            return come_again();
        }
        if unknown {
            let detail = "the project's token is not known; if that lasts, the project's status says why";
            return Problem::new(Kind::Unavailable, detail).retry_after(5);
        }
        Problem::new(Kind::Unauthorized, "the token is not valid for this project")
    };
    if !looks_like_jwt(token) {
        return Err(wrong());
    }
    match authorizer.may_publish(&Secret::new(token.to_owned()), key).await {
        Access::Allowed if unusable => Err(come_again()),
        Access::Allowed => {
            project.ok_or_else(|| Problem::new(Kind::NoProject, "no project of this name is ready"))
        }
        Access::Denied => Err(Problem::new(
            Kind::Forbidden,
            format!("the caller needs the verb `create` on `eventprojects/events` of group `{GROUP}`"),
        )),
        Access::Unauthenticated => Err(wrong()),
        Access::Unavailable => {
            Err(Problem::new(Kind::Unavailable, "the token cannot be checked now").retry_after(5))
        }
    }
}

/// Whether a Kubernetes caller has a right to an object. Whether that exists is told to nobody else.
pub(super) async fn authorize(
    headers: &HeaderMap,
    key: &ObjectKey,
    right: Right,
    authorizer: &dyn Authorizer,
) -> Result<(), Problem> {
    let Some(token) = bearer(headers) else {
        return Err(Problem::new(
            Kind::Unauthorized,
            "send `Authorization: Bearer <token>` with a Kubernetes token",
        ));
    };
    let wrong = || {
        Problem::new(
            Kind::Unauthorized,
            "the token is no Kubernetes token that is valid here",
        )
    };
    // People's tokens need be no JWT: what they look like is their cluster's affair.
    if token.starts_with(TOKEN_PREFIX) {
        return Err(wrong());
    }
    match authorizer.may(&Secret::new(token.to_owned()), key, right).await {
        Access::Allowed => Ok(()),
        Access::Denied => {
            let (verb, resource, subresource) = right.attributes();
            Err(Problem::new(
                Kind::Forbidden,
                format!(
                    "the caller needs the verb `{verb}` on `{resource}/{subresource}` of group `{GROUP}`"
                ),
            ))
        }
        Access::Unauthenticated => Err(wrong()),
        Access::Unavailable => {
            Err(Problem::new(Kind::Unavailable, "the token cannot be checked now").retry_after(5))
        }
    }
}

/// The bearer token; `None` unless there is exactly one well-formed `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    let fits = !token.is_empty() && token.len() <= MAX_TOKEN && token.bytes().all(|b| b.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("Bearer") && fits).then_some(token)
}

/// Whether two texts are the same, in a time that does not say how much of them is. An empty text is no token.
fn same(token: &str, expected: &str) -> bool {
    let digests = Sha256::digest(token.as_bytes()).ct_eq(&Sha256::digest(expected.as_bytes()));
    bool::from(digests) && !expected.is_empty()
}

/// Whether a token could be a service account's: three base64url parts, the first of which is a JSON object.
fn looks_like_jwt(token: &str) -> bool {
    let base64url = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let mut parts = token.split('.');
    let three = parts.by_ref().take(3).filter(|part| base64url(part)).count() == 3;
    three && parts.next().is_none() && token.starts_with("eyJ")
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::domain::event::sample;
    use crate::engine::publish::{Draft, PublishError, Receipt};

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    /// One project, and Kubernetes tokens by their second part.
    struct One(Arc<Project>);

    #[async_trait]
    impl Publisher for One {
        fn is_ready(&self) -> bool {
            true
        }

        fn is_unusable(&self, key: &ObjectKey) -> bool {
            *key.name == *"unusable"
        }

        fn project(&self, key: &ObjectKey) -> Option<Arc<Project>> {
            (*key == self.0.key).then(|| Arc::clone(&self.0))
        }

        async fn publish(&self, _: Arc<Project>, _: Vec<Draft>) -> Result<Vec<Receipt>, PublishError> {
            Err(PublishError::Stopping)
        }
    }

    #[async_trait]
    impl Authorizer for One {
        async fn may(&self, token: &Secret<String>, _: &ObjectKey, _: Right) -> Access {
            match token.expose().split('.').nth(1) {
                Some("allowed") => Access::Allowed,
                Some("denied") => Access::Denied,
                _ => Access::Unauthenticated,
            }
        }
    }

    #[tokio::test]
    async fn no_token_is_wrong_while_the_right_one_is_not_known() {
        let right = || Token::Known(Secret::new("ptr_right".to_owned()));
        for (token, name, sent, status, retry) in [
            (Token::Unknown, "acme", "ptr_right", 503, Some(5)),
            (Token::Unknown, "acme", "", 401, None),
            (Token::Unknown, "acme", "eyJh.nobody.c2ln", 503, Some(5)),
            (Token::Unknown, "acme", "eyJh.denied.c2ln", 403, None),
            (Token::Unknown, "acme", "eyJh.allowed.c2ln", 200, None),
            (Token::Unknown, "other", "ptr_right", 401, None),
            (Token::Unknown, "unusable", "ptr_right", 503, Some(30)),
            (Token::Unknown, "unusable", "eyJh.nobody.c2ln", 503, Some(30)),
            (Token::Unknown, "unusable", "eyJh.denied.c2ln", 403, None),
            (Token::Unknown, "unusable", "eyJh.allowed.c2ln", 503, Some(30)),
            (right(), "acme", "ptr_right", 200, None),
            (right(), "acme", "ptr_wrong", 401, None),
            (right(), "acme", "eyJh.nobody.c2ln", 401, None),
        ] {
            let one = One(Arc::new(Project {
                types: Arc::default(),
                key: ObjectKey::new("team", "acme"),
                facts: Arc::new(sample::bare_project("u", "acme")),
                token,
            }));
            let headers = headers(&[&format!("Bearer {sent}")]);
            let found = authenticate(&headers, &ObjectKey::new("team", name), &one, &one).await;
            let answer = found.map_or_else(
                |problem| (problem.status().as_u16(), problem.retry_after),
                |_| (200, None),
            );
            assert_eq!(answer, (status, retry), "{name} {sent:?}");
        }
    }

    #[tokio::test]
    async fn a_caller_may_have_any_token_that_kubernetes_knows() {
        let one = One(Arc::new(Project {
            types: Arc::default(),
            key: ObjectKey::new("team", "acme"),
            facts: Arc::new(sample::bare_project("u", "acme")),
            token: Token::Unknown,
        }));
        for (sent, status) in [
            ("eyJh.allowed.c2ln", 200),
            ("eyJh.denied.c2ln", 403),
            ("k8s-cloud-v1.allowed", 200),
            ("opaque", 401),
            ("ptr_.allowed", 401),
        ] {
            let headers = headers(&[&format!("Bearer {sent}")]);
            let key = ObjectKey::new("team", "hook");
            let answer = authorize(&headers, &key, Right::Replay, &one).await;
            let answer = answer.map_or_else(|problem| problem.status().as_u16(), |()| 200);
            assert_eq!(answer, status, "{sent}");
        }
    }

    #[test]
    fn only_one_well_formed_bearer_token_is_read() {
        assert_eq!(bearer(&headers(&["Bearer abc"])), Some("abc"));
        assert_eq!(bearer(&headers(&["bEARER  abc"])), Some("abc"));
        for garbled in [
            &[][..],
            &["Bearer"],
            &["Bearer "],
            &["Basic YTpi"],
            &["Bearer a b"],
            &["Bearer a", "Bearer a"],
            &["abc"],
        ] {
            assert_eq!(bearer(&headers(garbled)), None, "{garbled:?}");
        }
        assert_eq!(
            bearer(&headers(&[&format!("Bearer {}", "a".repeat(MAX_TOKEN + 1))])),
            None
        );
    }

    #[test]
    fn tokens_are_the_same_only_when_they_are() {
        assert!(same("abc", "abc"));
        for (token, expected) in [("abc", "abd"), ("abc", "ab"), ("", ""), ("abc", "")] {
            assert!(!same(token, expected), "{token:?} {expected:?}");
        }
    }

    #[test]
    fn only_three_parts_of_base64url_look_like_a_jwt() {
        assert!(looks_like_jwt("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln_-"));
        for other in [
            "pr_abcdef",
            "eyJh.eyJz",
            "eyJh.eyJz.c2ln.x",
            "eyJh..c2ln",
            "abc.def.ghi",
            "eyJ=.a.b",
        ] {
            assert!(!looks_like_jwt(other), "{other}");
        }
    }
}
