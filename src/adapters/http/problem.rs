//! [`Problem`]: an error as a problem document (RFC 9457).
//!
//! Owns the kinds of problems, their statuses and their words. Invariant: nothing here repeats a header, a body or
//! a token; `detail` is our own text, and pointers and fault texts come bounded from whoever parsed the body.
//!
//! Leaves to others: what is wrong with a body (`domain::event`).

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

/// Where the kinds of problems are named.
const BASE: &str = "https://postrider.dev/problems/";

/// What kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    MalformedRequest,
    InvalidEvent,
    Unauthorized,
    Forbidden,
    NoRoute,
    NoProject,
    NoDestination,
    NoDelivery,
    Conflict,
    EventGone,
    MethodNotAllowed,
    RequestTimeout,
    BodyTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    HeaderTooLarge,
    QueueFull,
    Unavailable,
    NoAnswer,
    Internal,
}

impl Kind {
    /// The last part of `type`, the title, and the status.
    const fn parts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::MalformedRequest => (
                "malformed-request",
                "The request is malformed",
                StatusCode::BAD_REQUEST,
            ),
            Self::InvalidEvent => ("invalid-event", "An event is not valid", StatusCode::BAD_REQUEST),
            Self::Unauthorized => (
                "unauthorized",
                "The caller is not authenticated",
                StatusCode::UNAUTHORIZED,
            ),
            Self::Forbidden => ("forbidden", "The caller may not do this", StatusCode::FORBIDDEN),
            Self::NoRoute => (
                "no-such-path",
                "There is nothing at this path",
                StatusCode::NOT_FOUND,
            ),
            Self::NoProject => (
                "no-such-project",
                "The project does not exist",
                StatusCode::NOT_FOUND,
            ),
            Self::NoDestination => (
                "no-such-destination",
                "The destination does not exist",
                StatusCode::NOT_FOUND,
            ),
            Self::NoDelivery => (
                "no-such-delivery",
                "Nothing is known of the event here",
                StatusCode::NOT_FOUND,
            ),
            Self::Conflict => (
                "conflict",
                "The delivery is not in a state for this",
                StatusCode::CONFLICT,
            ),
            Self::EventGone => ("event-gone", "The event is no longer stored", StatusCode::GONE),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                "The path does not take this method",
                StatusCode::METHOD_NOT_ALLOWED,
            ),
            Self::RequestTimeout => (
                "request-timeout",
                "The request did not end in time",
                StatusCode::REQUEST_TIMEOUT,
            ),
            Self::BodyTooLarge => (
                "body-too-large",
                "The body is too large",
                StatusCode::PAYLOAD_TOO_LARGE,
            ),
            Self::UriTooLong => (
                "uri-too-long",
                "The request target is too long",
                StatusCode::URI_TOO_LONG,
            ),
            Self::UnsupportedMediaType => (
                "unsupported-media-type",
                "The body is of a type that is not understood",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            Self::HeaderTooLarge => (
                "header-too-large",
                "The request line or the header fields are too large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ),
            Self::QueueFull => (
                "queue-full",
                "The project's queue is full",
                StatusCode::TOO_MANY_REQUESTS,
            ),
            Self::Unavailable => (
                "unavailable",
                "Nothing can be accepted now",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::NoAnswer => (
                "no-answer",
                "There was no answer in time",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::Internal => (
                "internal",
                "Something went wrong",
                StatusCode::INTERNAL_SERVER_ERROR,
            ),
        }
    }
}

/// An error, as its sender is told.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    pub(super) detail: String,
    pub(super) faults: Vec<Fault>,
    /// Faults in all, when there are any; `faults` may list fewer.
    pub(super) fault_count: usize,
    /// Every bad index of a batch.
    pub(super) indices: Vec<usize>,
    /// Seconds after which it is worth another try.
    pub(super) retry_after: Option<u32>,
    /// Methods that the path takes.
    pub(super) allow: Option<&'static str>,
}

/// One thing wrong with a body.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fault {
    /// Position of the event in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<usize>,
    /// JSON pointer into the body.
    pub(super) pointer: String,
    /// What kind, in one word.
    pub(super) reason: &'static str,
    /// What is wrong.
    pub(super) detail: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    faults: &'a [Fault],
    #[serde(skip_serializing_if = "Option::is_none")]
    fault_count: Option<usize>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    indices: &'a [usize],
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            faults: Vec::new(),
            fault_count: 0,
            indices: Vec::new(),
            retry_after: None,
            allow: None,
        }
    }

    pub(super) const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The path takes these methods only.
    pub(super) fn method(allow: &'static str) -> Self {
        let detail = format!("use {allow}");
        Self {
            allow: Some(allow),
            ..Self::new(Kind::MethodNotAllowed, detail)
        }
    }

    pub(super) const fn status(&self) -> StatusCode {
        self.kind.parts().2
    }

    /// The document's bytes.
    pub(super) fn body(&self) -> Bytes {
        let (kind, title, status) = self.kind.parts();
        let document = Document {
            kind: [BASE, kind].concat(),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            faults: &self.faults,
            fault_count: (self.fault_count > 0).then_some(self.fault_count),
            indices: &self.indices,
        };
        // Strings and numbers always serialise.
        serde_json::to_vec(&document).unwrap_or_default().into()
    }

    /// The whole answer.
    pub(super) fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.body());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// The whole answer as HTTP/1.1 text, for where no request was read and the connection ends.
    pub(super) fn raw(&self) -> Vec<u8> {
        let status = self.status();
        let body = self.body();
        let retry = self
            .retry_after
            .map(|seconds| format!("retry-after: {seconds}\r\n"))
            .unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
             {retry}connection: close\r\ncontent-length: {}\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len()
        );
        [head.as_bytes(), &body].concat()
    }
}
