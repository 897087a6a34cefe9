//! `spec.email` of an `EventDestination`: who gets a mail, and what is in it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{LocalReference, MAILBOX_MESSAGE, MAILBOX_RULE, MAILBOXES_RULE};

/// Mails that tell of events, through an SMTP server.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmailTarget {
    /// Who gets the mail, 1 to 50 addresses such as `ops@example.com` or `Ops Team <ops@example.com>`.
    #[schemars(length(min = 1, max = 50), inner(length(min = 3, max = 320)))]
    #[x_kube(validation = Rule::new(MAILBOXES_RULE).message(MAILBOX_MESSAGE))]
    pub to: Vec<String>,

    /// Who gets a copy, at most 50 addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 3, max = 320)))]
    #[x_kube(validation = Rule::new(MAILBOXES_RULE).message(MAILBOX_MESSAGE))]
    pub cc: Vec<String>,

    /// Where answers go, at most 8 addresses. Default: to the sender.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 3, max = 320)))]
    #[x_kube(validation = Rule::new(MAILBOXES_RULE).message(MAILBOX_MESSAGE))]
    pub reply_to: Vec<String>,

    /// The sender. Default: key `from` of the SMTP server's Secret. The server must let its user send as this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 320))]
    #[x_kube(validation = Rule::new(MAILBOX_RULE).message(MAILBOX_MESSAGE))]
    pub from: Option<String>,

    /// The subject, text with `{{ $.event.… }}` placeholders. Line breaks become spaces, and it is cut after 200
    /// characters. Default: the project's name in brackets and a sentence that fits the event's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub subject: Option<String>,

    /// The plain text, with `{{ $.event.… }}` placeholders, at most 64 KiB. Default, when `html` is not set either:
    /// the message and the facts of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub text: Option<String>,

    /// The HTML text, with `{{ $.event.… }}` placeholders, whose values are escaped: an event cannot add markup. At
    /// most 64 KiB. Default, when `text` is not set either: the message and the facts of the event. When one of
    /// `text` and `html` is set, the mail has that one part; set both for a mail that every client shows well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub html: Option<String>,

    /// True sends each address of `to` and `cc` a mail of its own that names no other. False (default) sends one
    /// mail that names all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_recipient: bool,

    /// Secret in the same namespace that describes the SMTP server: `host`; optional `port`, `security` (`StartTLS`
    /// (default), `TLS` or `None`), `username` and `password`, `from`, `ca` (PEM: the only authorities that are
    /// trusted), and `allowUnencrypted` (`"true"` permits `None` for a host other than this one).
    /// Default: the server that Postrider was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp_ref: Option<LocalReference>,
}

/// How the connection to an SMTP server is secured.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, Hash, JsonSchema)]
pub enum SmtpSecurity {
    /// In plain text at first, then TLS; without it nothing is sent.
    #[default]
    #[serde(rename = "StartTLS")]
    StartTls,
    /// TLS from the first byte.
    #[serde(rename = "TLS")]
    Tls,
    /// No encryption.
    None,
}
