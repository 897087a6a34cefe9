//! The part of [`Check`] that reads `spec.email`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::check::Check;
use super::{INSTALLATION, Reference, SMTP_PATH, secret};
use crate::api::v1alpha1::EmailTarget;
use crate::domain::email::{Email, Mailbox};
use crate::domain::smtp::SmtpServer;
use crate::domain::template::Template;

/// Most addresses of `to`, and of `cc`.
const MAX_RECIPIENTS: usize = 50;
/// Most addresses of `replyTo`.
const MAX_REPLY_TO: usize = 8;

impl Check<'_> {
    pub(super) fn email(&mut self, target: &EmailTarget) -> Option<Email> {
        if target.to.is_empty() {
            self.faults
                .invalid("spec.email.to", "name at least one recipient");
        }
        let to = self.mailboxes("to", &target.to, MAX_RECIPIENTS);
        let cc = self.mailboxes("cc", &target.cc, MAX_RECIPIENTS);
        let reply_to = self.mailboxes("replyTo", &target.reply_to, MAX_REPLY_TO);
        let subject = self.text_template("subject", target.subject.as_deref());
        let text = self.text_template("text", target.text.as_deref());
        let html = self.text_template("html", target.html.as_deref());
        let from = target
            .from
            .as_ref()
            .map(|from| self.mailbox("spec.email.from", from));
        let server = self.server(target)?;
        let from = match from {
            Some(from) => from?,
            None => server.from.clone().or_else(|| {
                let message =
                    "the SMTP server names no sender; set it here, or as key \"from\" of its Secret";
                self.faults.invalid("spec.email.from", message);
                None
            })?,
        };
        Some(Email {
            to,
            cc,
            reply_to,
            from,
            subject: subject?,
            text: text?,
            html: html?,
            per_recipient: target.per_recipient,
            server: Arc::new(server),
        })
    }

    fn mailboxes(&mut self, field: &str, texts: &[String], most: usize) -> Vec<Mailbox> {
        if texts.len() > most {
            self.faults.invalid(
                format!("spec.email.{field}"),
                format!("may have at most {most} addresses"),
            );
        }
        let each = texts.iter().enumerate();
        each.filter_map(|(index, text)| self.mailbox(&format!("spec.email.{field}[{index}]"), text))
            .collect()
    }

    fn mailbox(&mut self, path: &str, text: &str) -> Option<Mailbox> {
        match Mailbox::parse(text) {
            Ok(mailbox) => Some(mailbox),
            Err(fault) => {
                self.faults.invalid(path, fault);
                None
            }
        }
    }

    /// `Some(None)`: there is none, which is fine.
    #[expect(clippy::option_option, reason = "faulty, absent, there: three things")]
    fn text_template(&mut self, field: &str, source: Option<&str>) -> Option<Option<Template>> {
        let Some(source) = source else {
            return Some(None);
        };
        match Template::parse_text(source) {
            Ok(template) => Some(Some(template)),
            Err(faults) => {
                for fault in faults {
                    self.faults.invalid(format!("spec.email.{field}"), fault.message);
                }
                None
            }
        }
    }

    fn server(&mut self, target: &EmailTarget) -> Option<SmtpServer> {
        let name = target
            .smtp_ref
            .as_ref()
            .map_or(INSTALLATION, |reference| &reference.name);
        let reference = |key: &str| self.references.get(&secret(name, key));
        if matches!(reference("host"), None | Some(Reference::NoObject)) {
            let message = if name == INSTALLATION {
                "Postrider was installed without an SMTP server; name a Secret that describes one here, or have one \
                 set for the installation (--smtp-dir, chart value smtp.secretName)"
                    .to_owned()
            } else {
                format!("Secret {name:?} does not exist; create it with key \"host\"")
            };
            self.faults.missing(SMTP_PATH, message);
            return None;
        }
        let value = |key: &str| match reference(key) {
            Some(Reference::Found(value)) => Some(value.expose().as_slice()),
            _ => None,
        };
        let faults = match SmtpServer::read(value, self.egress) {
            Ok(server) => return Some(server),
            Err(faults) => faults,
        };
        let known: BTreeSet<_> = faults
            .into_iter()
            .map(|fault| (fault.key, fault.message))
            .collect();
        for (key, message) in known {
            let message = if name == INSTALLATION {
                format!("the SMTP server that Postrider was installed with, key {key:?}: {message}")
            } else {
                secret(name, key).holds(&message)
            };
            self.faults.invalid(SMTP_PATH, message);
        }
        None
    }
}
