//! What came back from an attempt, and what it means (DESIGN §6; Standard Webhooks, "Delivery").
//!
//! A [`Reply`] is what the receiver said; [`classify`] turns it into an [`Outcome`]. Failures below HTTP are
//! classified where they arise, in the transport, with the same [`FailureReason`]s.

mod reading;

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::strtime::BrokenDownTime;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, EnumIter, EnumString, IntoStaticStr};

pub use self::reading::Reading;

/// Most bytes of a reply's body that are read; a longer body is a failure.
pub const MAX_REPLY_READ: usize = 64 * 1024;
/// Most bytes of a reply's body that are kept.
pub const MAX_REPLY_KEPT: usize = 16 * 1024;
/// Most characters of a failure's message.
pub const MAX_MESSAGE: usize = 512;

/// An HTTP answer, read within the deadline and the cap.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// `Retry-After`, if it was sent and is text.
    pub retry_after: Option<String>,
    /// First [`MAX_REPLY_KEPT`] bytes of the body.
    pub excerpt: bytes::Bytes,
    /// Headers, of an answer to `OPTIONS`.
    pub headers: Option<Box<http::HeaderMap>>,
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx answer, and no body that says otherwise; over SMTP one for every recipient.
    Delivered {
        /// Status code.
        status: u16,
    },
    /// Anything else.
    Failed(Failure),
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One word.
    pub reason: FailureReason,
    /// Status code, if there was an answer.
    pub status: Option<u16>,
    /// The wait that the receiver asked for.
    pub retry_after: Option<Duration>,
    /// What happened and what to do; at most [`MAX_MESSAGE`] characters, no secret, no URL path.
    pub message: String,
}

/// Why an attempt failed, in one word: the same in condition, Kubernetes Event, metric and log.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    AsRefStr,
    IntoStaticStr,
    EnumIter,
    EnumString,
    Serialize,
    Deserialize,
)]
pub enum FailureReason {
    /// 3xx; redirects are never followed.
    Redirect,
    /// 4xx other than the ones below.
    ClientError,
    /// 410: the receiver asks for no more.
    Gone,
    /// 429.
    TooManyRequests,
    /// 2xx, but the body says that the service took nothing.
    Rejected,
    /// 502, 503, 504; SMTP 421.
    Unavailable,
    /// Other 5xx.
    ServerError,
    /// The deadline passed.
    Timeout,
    /// The host's name does not resolve.
    DnsError,
    /// TLS failed: certificate, name, version.
    TlsError,
    /// Nothing listens there.
    ConnectionRefused,
    /// The connection broke.
    ConnectionReset,
    /// Connecting failed in another way.
    ConnectionFailed,
    /// The answer is not HTTP, or not HTTP that we accept: a code outside 200–599 is no final answer.
    ProtocolError,
    /// The answer's body is over [`MAX_REPLY_READ`].
    ResponseTooLarge,
    /// The address is not allowed; see `--allow-egress`.
    EgressRefused,
    /// The payload could not be rendered or signed.
    TemplateFault,
    /// The proxy does not let us through, or may not be connected to.
    ProxyRefused,
    /// The proxy is not reached, or does not reach the receiver.
    ProxyFailed,
    /// The OAuth 2.0 token endpoint gave no token this time.
    TokenRequestFailed,
    /// The OAuth 2.0 token endpoint refuses the client, its secret or what it asks for.
    TokenRefused,
    /// SMTP: user name or password was refused, or the server offers no way to give them that we have.
    AuthenticationFailed,
    /// SMTP 4xx other than 421: not now.
    TryLater,
    /// SMTP 5xx for the sender, the size or the content: the server will not take this mail.
    MessageRefused,
    /// SMTP 5xx for each recipient.
    RecipientRefused,
    /// Some recipients have the mail, the others were refused for good.
    PartlyRefused,
    /// The event is over the destination's `maxAge`.
    TooOld,
    /// The stored event is damaged.
    EventCorrupt,
}

impl FailureReason {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether no retry can mend it: the event is given up at once.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::EgressRefused
                | Self::TemplateFault
                | Self::TooOld
                | Self::EventCorrupt
                | Self::MessageRefused
                | Self::RecipientRefused
                | Self::PartlyRefused
        )
    }

    /// Whether it says something about the receiver, so that it counts towards auto-disable.
    #[must_use]
    pub const fn counts_against_receiver(self) -> bool {
        match self {
            Self::MessageRefused | Self::RecipientRefused => true,
            // The receiver was not asked.
            Self::ProxyRefused | Self::ProxyFailed => false,
            other => !other.is_terminal(),
        }
    }

    /// Whether the event was given up before anything was sent.
    #[must_use]
    pub const fn precedes_request(self) -> bool {
        matches!(self, Self::EventCorrupt | Self::TooOld | Self::TemplateFault)
    }

    /// Whether the receiver has taken what others refused, so that it counts as a success does for its health.
    #[must_use]
    pub const fn shows_that_receiver_works(self) -> bool {
        matches!(self, Self::PartlyRefused)
    }

    /// Whether the whole lane should slow down, not this event alone.
    #[must_use]
    pub const fn slows_lane(self) -> bool {
        matches!(
            self,
            Self::TooManyRequests | Self::Unavailable | Self::TokenRequestFailed
        )
    }
}

/// Reads an answer in the way of the service that gave it.
#[must_use]
pub fn classify(reply: &Reply, reading: Reading, now: Timestamp) -> Outcome {
    let reason = match reply.status {
        200..=299 => {
            return reading
                .refusal(reply)
                .map_or(Outcome::Delivered { status: reply.status }, Outcome::Failed);
        }
        300..=399 => FailureReason::Redirect,
        410 => FailureReason::Gone,
        429 => FailureReason::TooManyRequests,
        400..=499 => FailureReason::ClientError,
        502..=504 => FailureReason::Unavailable,
        500..=599 => FailureReason::ServerError,
        // RFC 9110 §15: 1xx comes before the final answer, and there is nothing below 100 or from 600 on. The RFC
        // has the latter treated like 5xx, which is what being tried again amounts to.
        _ => FailureReason::ProtocolError,
    };
    let retry_after = reply
        .retry_after
        .as_deref()
        .filter(|_| reason.slows_lane() || reply.status >= 500)
        .and_then(|text| retry_after(text, now))
        .or_else(|| reading.wait(reply).filter(|_| reason.slows_lane()));
    let message = match reason {
        FailureReason::Redirect => {
            format!(
                "the receiver answered {}; redirects are not followed, set the final URL",
                reply.status
            )
        }
        FailureReason::Gone => "the receiver answered 410 Gone and wants no more events".to_owned(),
        FailureReason::ProtocolError if (100..=199).contains(&reply.status) => {
            format!(
                "the receiver answered {}, which announces another answer and is none; it must answer 2xx",
                reply.status
            )
        }
        FailureReason::ProtocolError => {
            format!(
                "the receiver answered {}, which is no status of HTTP; it must answer 2xx",
                reply.status
            )
        }
        _ => format!("the receiver answered {}", reply.status),
    };
    Outcome::Failed(Failure {
        reason,
        status: Some(reply.status),
        retry_after,
        message,
    })
}

/// Reads `Retry-After` (RFC 9110 §10.2.3): whole seconds or an HTTP date. Garbage and the past are `None`.
#[must_use]
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX))).filter(|wait| !wait.is_zero());
    }
    let Ok(at) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text) else {
        return is_last_days(text).then_some(Duration::from_secs(u64::MAX));
    };
    Duration::try_from(at.duration_since(now))
        .ok()
        .filter(|wait| !wait.is_zero())
}

/// Whether it is an HTTP date that is too late for a timestamp: the end of the year 9999, which says "never".
fn is_last_days(text: &str) -> bool {
    BrokenDownTime::parse("%a, %d %b %Y %H:%M:%S GMT", text)
        .and_then(|parsed| parsed.to_datetime())
        .is_ok_and(|date| date.year() == 9999)
}

impl Failure {
    /// A failure without an answer.
    #[must_use]
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
        }
        Self {
            reason,
            status: None,
            retry_after: None,
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strum::IntoEnumIterator;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-31T08:15:30Z".parse().unwrap()
    }

    fn reason(status: u16) -> Option<FailureReason> {
        match classify(
            &Reply {
                status,
                ..Reply::default()
            },
            Reading::Status,
            now(),
        ) {
            Outcome::Delivered { .. } => None,
            Outcome::Failed(failure) => Some(failure.reason),
        }
    }

    #[test]
    fn every_status_is_read_as_the_table_says() {
        use FailureReason as R;
        for (statuses, expected) in [
            (vec![200, 201, 202, 204, 299], None),
            (vec![300, 301, 302, 304, 307, 308], Some(R::Redirect)),
            (vec![400, 401, 403, 404, 408, 409, 422, 499], Some(R::ClientError)),
            (vec![410], Some(R::Gone)),
            (vec![429], Some(R::TooManyRequests)),
            (vec![502, 503, 504], Some(R::Unavailable)),
            (vec![500, 501, 505, 599], Some(R::ServerError)),
            (vec![0, 99, 100, 101, 199, 600, 999], Some(R::ProtocolError)),
        ] {
            for status in statuses {
                assert_eq!(reason(status), expected, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date_and_garbage_is_not() {
        for (text, expected) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Sat, 31 Jan 2026 08:16:30 GMT", Some(60)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(u64::MAX)),
            ("0", None),
            ("-5", None),
            ("1.5", None),
            ("Sat, 31 Jan 2026 08:14:30 GMT", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(
                retry_after(text, now()),
                expected.map(Duration::from_secs),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_success_ignores_retry_after_and_a_throttle_keeps_it() {
        let reply = |status| Reply {
            status,
            retry_after: Some("30".into()),
            ..Reply::default()
        };
        for (status, expected) in [
            (101, None),
            (404, None),
            (429, Some(30)),
            (500, Some(30)),
            (503, Some(30)),
            (600, Some(30)),
        ] {
            let Outcome::Failed(failure) = classify(&reply(status), Reading::Status, now()) else {
                panic!("{status} is a failure")
            };
            assert_eq!(failure.retry_after, expected.map(Duration::from_secs), "{status}");
        }
    }

    /// What a reply of 200 with that body comes to: reason, wait and message.
    fn read(reading: Reading, body: &'static str) -> Option<(FailureReason, Option<u64>, String)> {
        let reply = Reply {
            status: 200,
            excerpt: bytes::Bytes::from_static(body.as_bytes()),
            ..Reply::default()
        };
        match classify(&reply, reading, now()) {
            Outcome::Delivered { status } => {
                assert_eq!(status, 200);
                None
            }
            Outcome::Failed(failure) => {
                assert_eq!(failure.status, Some(200));
                let wait = failure.retry_after.map(|wait| wait.as_secs());
                Some((failure.reason, wait, failure.message))
            }
        }
    }

    #[test]
    fn services_that_refuse_with_200_are_understood() {
        use FailureReason::{Rejected, TooManyRequests};
        const LIMITED: &str = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error \
            429 with ContextId tcid=0,server=x..";
        for (reading, body, expected) in [
            (Reading::Slack, "ok", None),
            (Reading::Slack, "ok\n", None),
            (Reading::Slack, "", None),
            (Reading::Slack, "{\"ok\":true}", None),
            (Reading::Slack, "{\"success\":true}", None),
            (
                Reading::Slack,
                "{\"ok\":false,\"error\":\"x\"}",
                Some((Rejected, None)),
            ),
            (Reading::Slack, "invalid_blocks", Some((Rejected, None))),
            (Reading::Slack, "<html>Sign in</html>", Some((Rejected, None))),
            (
                Reading::Telegram,
                "{\"ok\":true,\"result\":{\"message_id\":1}}",
                None,
            ),
            (Reading::Telegram, "fine", None),
            (
                Reading::Telegram,
                "{\"ok\":false,\"error_code\":400,\"description\":\"Bad Request: chat not found\"}",
                Some((Rejected, None)),
            ),
            (
                Reading::Telegram,
                "{\"ok\":false,\"error_code\":429,\"parameters\":{\"retry_after\":17}}",
                Some((TooManyRequests, Some(17))),
            ),
            (Reading::MicrosoftTeams, "1", None),
            (Reading::MicrosoftTeams, "", None),
            (Reading::MicrosoftTeams, LIMITED, Some((TooManyRequests, None))),
            (
                Reading::MicrosoftTeams,
                "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 413",
                Some((Rejected, None)),
            ),
            (
                Reading::MicrosoftTeams,
                "Webhook message delivery failed.",
                Some((Rejected, None)),
            ),
            (Reading::Status, "invalid_blocks", None),
            (Reading::Status, LIMITED, None),
        ] {
            let found = read(reading, body).map(|(reason, wait, _)| (reason, wait));
            assert_eq!(found, expected, "{reading:?} {body}");
        }
    }

    #[test]
    fn a_refusals_message_has_its_code_and_nothing_that_may_be_secret() {
        let message = |reading, body| read(reading, body).unwrap().2;
        assert!(message(Reading::Slack, "no_active_hooks").contains("\"no_active_hooks\""));
        assert!(!message(Reading::Slack, "no hook /services/T0/B0/Sec").contains("Sec"));
        let telegram = "{\"ok\":false,\"error_code\":400,\"description\":\"bot123:hunter2\"}";
        let telegram = message(Reading::Telegram, telegram);
        assert!(
            telegram.contains("400") && !telegram.contains("hunter2"),
            "{telegram}"
        );
        let teams = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 404 with \
            ContextId hunter2";
        let teams = message(Reading::MicrosoftTeams, teams);
        assert!(teams.contains("404") && !teams.contains("hunter2"), "{teams}");
    }

    #[test]
    fn telegram_says_in_the_body_how_long_to_wait() {
        let body = "{\"ok\":false,\"error_code\":429,\"parameters\":{\"retry_after\":9}}";
        let reply = |status| Reply {
            status,
            excerpt: bytes::Bytes::from_static(body.as_bytes()),
            ..Reply::default()
        };
        let wait = |status, reading| match classify(&reply(status), reading, now()) {
            Outcome::Failed(failure) => failure.retry_after,
            Outcome::Delivered { .. } => panic!("{status} is a failure"),
        };
        assert_eq!(wait(429, Reading::Telegram), Some(Duration::from_secs(9)));
        assert_eq!(wait(429, Reading::Status), None);
        assert_eq!(wait(400, Reading::Telegram), None);
    }

    #[test]
    fn every_reason_is_one_word_that_reads_back() {
        for reason in FailureReason::iter() {
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_alphanumeric()));
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
    }

    proptest! {
        #[test]
        fn retry_after_never_panics(text in ".{0,64}") {
            let _ = retry_after(&text, now());
        }
    }
}
