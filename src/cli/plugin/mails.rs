//! The part of `render` that is about e-mail: what is said to the SMTP server.

use serde::Serialize;

use super::shown::Output;
use super::{RenderOutput, Report, Verdict};
use crate::adapters::smtp::mime;
use crate::api::v1alpha1::EventDestinationSpec;
use crate::domain::destination::{INSTALLATION, Reference, References, secret};
use crate::domain::email::Mail;
use crate::domain::secret::Secret;

/// Host and sender of a server that is not among the files.
const STAND_IN: [(&str, &str); 2] = [("host", "smtp.invalid"), ("from", "postrider@smtp.invalid")];

/// Puts a server in the place of one that is not among the files, and says so.
pub(super) fn stand_in(spec: &EventDestinationSpec, references: &mut References, report: &mut Report) {
    let Some(email) = &spec.email else { return };
    let name = email
        .smtp_ref
        .as_ref()
        .map_or(INSTALLATION, |reference| &reference.name);
    let key = |key: &str| secret(name, key);
    if !matches!(references.get(&key("host")), None | Some(Reference::NoObject)) {
        return;
    }
    report.note(if name == INSTALLATION {
        "note: the SMTP server is the one that Postrider was installed with; a stand-in is used".to_owned()
    } else {
        format!("note: Secret {name:?}, which describes the SMTP server, is not among the files; a stand-in is used")
    });
    for (member, value) in STAND_IN {
        let value = Secret::new(value.as_bytes().to_vec());
        references.insert(key(member), Reference::Found(value));
    }
}

/// Mails as they are shown to programs.
#[derive(Serialize)]
struct Shown {
    server: String,
    mails: Vec<ShownMail>,
}

#[derive(Serialize)]
struct ShownMail {
    from: String,
    recipients: Vec<String>,
    message: String,
}

/// Shows mails: with the envelope, or the messages alone.
///
/// # Errors
/// When they cannot be written as JSON or YAML, which would be a bug.
pub(super) fn show(output: RenderOutput, mail: &Mail, report: &mut Report) -> anyhow::Result<()> {
    let mut shown = Shown {
        server: mail.server.origin(),
        mails: Vec::new(),
    };
    for (index, letter) in mail.letters.iter().enumerate() {
        let bytes = match mime::format(letter) {
            Ok(bytes) => bytes,
            Err(error) => {
                report.at_least(Verdict::Faulty);
                report.note(format!("error: the mail cannot be written: {error}"));
                continue;
            }
        };
        let from = letter.from.address();
        let recipients = letter
            .recipients
            .iter()
            .map(|recipient| recipient.mailbox.address());
        if output.form() != Output::Table {
            shown.mails.push(ShownMail {
                from,
                recipients: recipients.collect(),
                message: String::from_utf8_lossy(&bytes).into_owned(),
            });
            continue;
        }
        if index > 0 {
            report.line("");
        }
        if output == RenderOutput::Request {
            report.line(&shown.server);
            report.line(&format!("MAIL FROM:<{from}>"));
            for recipient in recipients {
                report.line(&format!("RCPT TO:<{recipient}>"));
            }
            report.line("");
        }
        report.out.extend_from_slice(&bytes);
    }
    report.value(&shown, output.form()).map(drop)
}
