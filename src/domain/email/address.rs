//! [`Mailbox`]: an e-mail address that can stand in a header and in an SMTP command, with a name for people.
//!
//! Only the usual form is taken: a local part of dot-separated atoms, letters outside ASCII included (RFC 6531), and
//! a domain name, which is kept in its ASCII form. Quoted local parts, address literals and comments are refused:
//! nobody has such an address, and each is a way to smuggle something in.

use std::fmt;

use url::Host;

/// Most bytes of a local part (RFC 5321 §4.5.3.1.1).
const MAX_LOCAL: usize = 64;
/// Most bytes of an address, as it fits into a path (RFC 5321 §4.5.3.1.3).
const MAX_ADDRESS: usize = 254;
/// Most characters of a name.
const MAX_NAME: usize = 128;
/// What a message gives as an example.
const EXAMPLE: &str = "for example ops@example.com or Ops Team <ops@example.com>";

/// An address, and the name before it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    name: Option<Box<str>>,
    local: Box<str>,
    domain: Box<str>,
}

impl Mailbox {
    /// Reads `local@domain` or `Name <local@domain>`.
    ///
    /// # Errors
    /// What is wrong and what to do; never the address itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.chars().any(char::is_control) {
            return Err("an address must not hold line breaks or other control characters".to_owned());
        }
        let (name, address) = match text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
            Some((name, address)) => (name.trim(), address.trim()),
            None => ("", text),
        };
        let name = match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
            Some(name) => name.replace("\\\"", "\"").replace("\\\\", "\\"),
            None => name.to_owned(),
        };
        if name.chars().count() > MAX_NAME {
            return Err(format!("the name is over {MAX_NAME} characters; shorten it"));
        }
        let (local, domain) = address
            .rsplit_once('@')
            .ok_or_else(|| format!("this is not an address; give one, {EXAMPLE}"))?;
        if local.is_empty() || local.len() > MAX_LOCAL || !local.split('.').all(is_atom) {
            return Err(format!(
                "the part before \"@\" must be letters, digits and {ATOM}, with single dots between, at most \
                 {MAX_LOCAL} bytes"
            ));
        }
        let domain = match Host::parse(domain) {
            Ok(Host::Domain(domain)) if !domain.ends_with('.') && domain.split('.').all(is_label) => domain,
            _ => return Err(format!("the part after \"@\" must be a domain name, {EXAMPLE}")),
        };
        if local.len() + 1 + domain.len() > MAX_ADDRESS {
            return Err(format!("the address is over {MAX_ADDRESS} bytes"));
        }
        Ok(Self {
            name: (!name.is_empty()).then(|| name.into()),
            local: local.into(),
            domain: domain.into(),
        })
    }

    /// The name, if there is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// `local@domain`, the domain in ASCII.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}@{}", self.local, self.domain)
    }

    /// The part before `@`.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The part after `@`, in ASCII.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether the server must understand SMTPUTF8 to take it.
    #[must_use]
    pub fn is_international(&self) -> bool {
        !self.local.is_ascii()
    }

    /// Whether both lead to the same place, as far as that can be told: case counts before the `@` only.
    #[must_use]
    pub fn is_same_address(&self, other: &Self) -> bool {
        self.local == other.local && self.domain == other.domain
    }
}

/// Addresses are personal: a log line has no business with more than the domain.
impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox(…@{})", self.domain)
    }
}

/// The characters of an atom besides letters and digits, as a message shows them.
const ATOM: &str = "!#$%&'*+-/=?^_`{|}~";

fn is_atom(part: &str) -> bool {
    !part.is_empty()
        && part.chars().all(|one| {
            if one.is_ascii() {
                one.is_ascii_alphanumeric() || ATOM.contains(one)
            } else {
                one.is_alphanumeric()
            }
        })
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !label.is_empty() && label.len() <= 63 && label.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_name() {
        for (text, name, address) in [
            ("ops@example.com", None, "ops@example.com"),
            (
                " Ops Team <ops@Example.COM> ",
                Some("Ops Team"),
                "ops@example.com",
            ),
            ("<a.b+c@x.example>", None, "a.b+c@x.example"),
            (
                "\"Müller, \\\"M\\\"\" <m@bücher.example>",
                Some("Müller, \"M\""),
                "m@xn--bcher-kva.example",
            ),
            ("jürgen@example.com", None, "jürgen@example.com"),
            ("root@localhost", None, "root@localhost"),
        ] {
            let mailbox = Mailbox::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!((mailbox.name(), mailbox.address().as_str()), (name, address));
        }
    }

    #[test]
    fn what_could_smuggle_something_in_is_refused() {
        for text in [
            "",
            "ops",
            "@example.com",
            "ops@",
            "a b@example.com",
            "a..b@example.com",
            ".a@example.com",
            "\"a b\"@example.com",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@b@c.example",
            "a@exa mple.com",
            "a@example.com, b@example.com",
            "a@example.com\r\nBcc: x@y.example",
            "N\n <a@b.example>",
            "a@example.com>",
            "a(comment)@example.com",
            "a@example.com.",
            "a@-\u{0}.example",
        ] {
            assert!(Mailbox::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_log_line_shows_the_domain_alone() {
        let mailbox = Mailbox::parse("Jane Doe <jane@example.com>").unwrap();
        assert_eq!(format!("{mailbox:?}"), "Mailbox(…@example.com)");
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_fits_into_one_command(text in ".{0,80}") {
            if let Ok(mailbox) = Mailbox::parse(&text) {
                let address = mailbox.address();
                prop_assert!(address.len() <= MAX_ADDRESS);
                prop_assert!(!address.contains(|c: char| c.is_control() || c.is_whitespace() || "<>,;\"()[]\\".contains(c)));
            }
        }
    }
}
