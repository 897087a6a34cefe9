//! [`shown`]: what of a server's reply a message repeats.
//!
//! Visible ASCII of bounded length, without names before an `@`, for addresses are personal, and without what the
//! server was told in confidence: the password, also as base64 and as the tokens of `AUTH PLAIN` and `AUTH LOGIN`,
//! whatever its case and however it is broken over lines, and the user name where it is a word. A password of fewer
//! than [`MIN_PASSWORD`] visible characters is in many a word: then nothing of a reply is repeated.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use zeroize::Zeroizing;

use crate::domain::smtp::Credentials;

/// Most characters of a reply that a message repeats.
const MAX_SHOWN: usize = 200;
/// Fewest visible characters of a password for which a reply is searched, and of anything else.
const MIN_PASSWORD: usize = 4;
/// Stands for what is not shown.
const MASK: &str = "***";

/// What of a reply's lines can be shown.
pub(super) fn shown(lines: &[String], credentials: Option<&Credentials>) -> String {
    let text: Vec<char> = lines.join(" ").chars().collect();
    let hidden = match credentials.map(|credentials| hidden(&text, credentials)) {
        Some(Some(hidden)) => hidden,
        Some(None) => return String::new(),
        None => Vec::new(),
    };
    let mut flags = vec![false; text.len()];
    for range in hidden {
        flags.get_mut(range).unwrap_or_default().fill(true);
    }
    let mut out = String::with_capacity(MAX_SHOWN);
    let mut was_hidden = false;
    for (one, is_hidden) in text.into_iter().zip(flags) {
        if is_hidden {
            if !was_hidden {
                out.push_str(MASK);
            }
            was_hidden = true;
            continue;
        }
        was_hidden = false;
        if one == '@' {
            let start = out.rfind(|before| " <>\"'(),:;[]".contains(before));
            out.truncate(start.map_or(0, |start| start + 1));
            out.push_str(MASK);
        }
        out.push(if one.is_ascii_graphic() { one } else { ' ' });
    }
    out.truncate(MAX_SHOWN);
    out.trim().to_owned()
}

/// Which characters are those of something told in confidence; `None` when that cannot be said.
fn hidden(text: &[char], credentials: &Credentials) -> Option<Vec<RangeInclusive<usize>>> {
    let (user, password) = (credentials.username.as_str(), credentials.password.expose());
    if visible(password).len() < MIN_PASSWORD {
        return None;
    }
    let mut searched = String::with_capacity(text.len());
    let mut places = Vec::with_capacity(text.len());
    for (at, one) in text.iter().enumerate().filter(|(_, one)| one.is_ascii_graphic()) {
        searched.push(one.to_ascii_lowercase());
        places.push(at);
    }
    let find = |what: &str| -> Vec<RangeInclusive<usize>> {
        let what = visible(what);
        if what.len() < MIN_PASSWORD {
            return Vec::new();
        }
        let place = |at: usize| places.get(at).copied().unwrap_or(text.len());
        let found = searched.match_indices(what.as_str());
        found
            .map(|(at, found)| place(at)..=place(at + found.len() - 1))
            .collect()
    };
    let mut all = find(password);
    for token in [
        &[password.as_str()][..],
        &["\0", user, "\0", password],
        &[user, "\0", password],
        &[user, ":", password],
        &[user],
    ] {
        let token = Zeroizing::new(token.concat());
        for engine in [STANDARD, STANDARD_NO_PAD] {
            all.extend(find(&Zeroizing::new(engine.encode(token.as_bytes()))));
        }
    }
    // Of an address the domain may be shown.
    if !user.contains('@') {
        let is_word = |at: Option<usize>| {
            at.and_then(|at| text.get(at))
                .is_some_and(|one| one.is_alphanumeric() || matches!(one, '-' | '_'))
        };
        let names = find(user)
            .into_iter()
            .filter(|range| !is_word(range.start().checked_sub(1)) && !is_word(range.end().checked_add(1)));
        all.extend(names);
    }
    Some(all)
}

/// What can be seen of a text, in lower case: servers fold, cut and change what they repeat.
fn visible(text: &str) -> Zeroizing<String> {
    let seen = text.chars().filter(char::is_ascii_graphic);
    Zeroizing::new(seen.map(|one| one.to_ascii_lowercase()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::Secret;

    fn of(username: &str, password: &str, lines: &[&str]) -> String {
        let credentials = Credentials {
            username: username.to_owned(),
            password: Secret::new(password.to_owned()),
        };
        let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
        shown(&lines, Some(&credentials))
    }

    const USER: &str = "postrider@x.test";
    const PASSWORD: &str = "Pa55Word@Super/Secret";

    #[test]
    fn no_form_of_a_password_that_the_server_was_told_is_shown() {
        let told = |text: &str| STANDARD.encode(text);
        let plain = told(&format!("\0{USER}\0{PASSWORD}"));
        for repeated in [
            PASSWORD.to_owned(),
            PASSWORD.to_uppercase(),
            told(PASSWORD),
            told(PASSWORD).trim_end_matches('=').to_owned(),
            plain.clone(),
            told(&format!("{USER}\0{PASSWORD}")),
            told(USER),
            format!("{USER}:{PASSWORD}"),
            format!("\0{USER}\0{PASSWORD}"),
        ] {
            let line = format!("5.7.1 rejected, you said \"{repeated}\", sorry");
            let text = of(USER, PASSWORD, &[&line]);
            assert!(text.starts_with("5.7.1 rejected, you said"), "{text}");
            assert!(text.contains("***") && text.ends_with("sorry"), "{text}");
            for part in [
                "pa55",
                "secret",
                &told(PASSWORD)[..8],
                &told(USER)[..8],
                &plain[..8],
            ] {
                assert!(!text.to_lowercase().contains(&part.to_lowercase()), "{text}");
            }
        }
    }

    #[test]
    fn a_password_that_goes_over_lines_or_behind_the_end_is_not_shown() {
        let text = of(
            USER,
            PASSWORD,
            &["5.7.1 not Pa55Word@Su", "per/Secret and", "more"],
        );
        assert_eq!(text, "5.7.1 not *** and more");
        let long = format!("{} {PASSWORD}", "x".repeat(190));
        assert!(!of(USER, PASSWORD, &[&long]).contains("Pa5"));
        assert_eq!(
            of("u", "pässwört-x", &["no p\u{fffd}ssw\u{fffd}rt-x here"]),
            "no *** here"
        );
    }

    #[test]
    fn a_user_name_is_masked_where_it_is_a_word() {
        assert_eq!(
            of("mail-42", PASSWORD, &["no MAIL-42, not mail-421"]),
            "no ***, not mail-421"
        );
        assert_eq!(of(USER, PASSWORD, &["no postrider@x.test"]), "no ***@x.test");
    }

    #[test]
    fn a_reply_is_not_repeated_when_the_password_is_too_short_to_be_found() {
        assert_eq!(of("u", "abc", &["5.7.1 a fabcric"]), "");
        assert_eq!(of("u", "abcd", &["5.7.1 a fabcric"]), "5.7.1 a fabcric");
    }

    #[test]
    fn without_a_password_the_words_are_told_and_of_addresses_the_domain() {
        let lines = ["no such user <a.b@x.test>".to_owned(), "here".to_owned()];
        assert_eq!(shown(&lines, None), "no such user <***@x.test> here");
        let long = format!("no {}@x.test", "n".repeat(1000));
        assert_eq!(shown(&[long], None), "no ***@x.test");
    }
}
