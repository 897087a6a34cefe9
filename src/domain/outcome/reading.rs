//! [`Reading`]: what a service's replies say beside their status.
//!
//! Some services answer `200 OK` and say in the body that they took nothing. Of such a body only a number or a code
//! word goes into the failure's message: texts may repeat what was sent, or the URL.

use std::time::Duration;

use serde::Deserialize;

use super::{Failure, FailureReason, Reply};

/// Longest code word that is taken over.
const MAX_WORD: usize = 64;

/// How a service's replies are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// The status says it all.
    #[default]
    Status,
    /// Slack: `ok`, or JSON of a service that takes Slack's messages; any other text is a refusal.
    Slack,
    /// Telegram: JSON with `ok: false` is a refusal, and says how long to wait.
    Telegram,
    /// Microsoft Teams: an error of the endpoint behind it, as text with status 200.
    MicrosoftTeams,
}

/// What Telegram, and others like it, answer.
#[derive(Default, Deserialize)]
struct Answer {
    ok: Option<bool>,
    error_code: Option<u16>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
}

impl Reading {
    /// Why a reply with a status of success is a failure all the same.
    pub(in crate::domain) fn refusal(self, reply: &Reply) -> Option<Failure> {
        let text = std::str::from_utf8(&reply.excerpt).unwrap_or("\u{fffd}").trim();
        let failure = match self {
            Self::Status => return None,
            Self::Slack => slack(text)?,
            Self::Telegram => telegram(text)?,
            Self::MicrosoftTeams => teams(text)?,
        };
        Some(Failure {
            status: Some(reply.status),
            ..failure
        })
    }

    /// The wait that a reply of failure asks for in its body.
    pub(super) fn wait(self, reply: &Reply) -> Option<Duration> {
        let answer: Answer = match self {
            Self::Telegram => serde_json::from_slice(&reply.excerpt).ok()?,
            _ => return None,
        };
        seconds(&answer)
    }
}

fn seconds(answer: &Answer) -> Option<Duration> {
    let wait = Duration::from_secs(answer.parameters.retry_after?);
    Some(wait).filter(|wait| !wait.is_zero())
}

fn slack(text: &str) -> Option<Failure> {
    if text.is_empty() || text == "ok" {
        return None;
    }
    if text.starts_with('{')
        && let Ok(answer) = serde_json::from_str::<Answer>(text)
    {
        let failure = || {
            Failure::new(
                FailureReason::Rejected,
                "the receiver answered 2xx, but with ok: false",
            )
        };
        return (answer.ok == Some(false)).then(failure);
    }
    let is_word =
        text.len() <= MAX_WORD && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let message = if is_word {
        format!("the receiver answered 2xx, but {text:?} instead of \"ok\"")
    } else {
        "the receiver answered 2xx, but another text than \"ok\"; is the URL that of an incoming webhook?"
            .to_owned()
    };
    Some(Failure::new(FailureReason::Rejected, message))
}

fn telegram(text: &str) -> Option<Failure> {
    let answer: Answer = serde_json::from_str(text).ok()?;
    if answer.ok != Some(false) {
        return None;
    }
    let code = answer.error_code;
    let reason = of_code(code);
    let code = code.map(|code| format!(", error_code: {code}"));
    let message = format!(
        "the receiver answered 2xx, but with ok: false{}",
        code.unwrap_or_default()
    );
    Some(Failure {
        retry_after: seconds(&answer).filter(|_| reason.slows_lane()),
        ..Failure::new(reason, message)
    })
}

fn teams(text: &str) -> Option<Failure> {
    const FAILED: &str = "webhook message delivery failed";
    const CODE: &str = "http error ";
    let lower: String = text
        .chars()
        .take(512)
        .map(|char| char.to_ascii_lowercase())
        .collect();
    if !lower.starts_with(FAILED) && !lower.contains("microsoft teams endpoint returned http error") {
        return None;
    }
    let code = lower.split_once(CODE).and_then(|(_, rest)| {
        let digits = rest.split(|char: char| !char.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    let message = match code {
        Some(code) => format!("the receiver answered 2xx, but Microsoft Teams behind it answered {code}"),
        None => "the receiver answered 2xx, but says that the message was not delivered".to_owned(),
    };
    Some(Failure::new(of_code(code), message))
}

/// Only a service that wants fewer requests has a reason of its own.
const fn of_code(code: Option<u16>) -> FailureReason {
    match code {
        Some(429) => FailureReason::TooManyRequests,
        _ => FailureReason::Rejected,
    }
}
