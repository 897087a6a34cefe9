//! `verify`: whether a request is genuine and, if not, why.
//!
//! The check itself is `domain`'s. What is added is a search for the usual reasons: a header that got lost, a body
//! that was read and written anew, another key or another way to write the signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use serde_json::Value;

use super::{Report, Verdict, VerifyArgs, VerifyEncoding, VerifyScheme, input};
use crate::api::v1alpha1::event_destination::SignatureEncoding;
use crate::domain::duration;
use crate::domain::secret::Secret;
use crate::domain::signature::{Signer, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP};
use crate::engine::clock::{Clock as _, SystemClock};

/// Bytes of every signature.
const CODE: usize = 32;

/// Checks the request.
///
/// # Errors
/// When a file or the key cannot be used.
pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<Report> {
    let key = Secret::new(input::bytes(&args.secret)?);
    let body = input::bytes(&args.body)?;
    let signer = signer(args, key.expose()).map_err(|detail| anyhow::anyhow!("--secret: {detail}"))?;
    let headers: HeaderMap = args.header.iter().cloned().collect();
    let problems = problems(args, &signer, &headers, &body);
    let mut report = Report::default();
    if problems.is_empty() {
        report.line("genuine");
    } else {
        report.at_least(Verdict::Faulty);
        for problem in problems {
            report.line(&format!("not genuine: {problem}"));
        }
    }
    Ok(report)
}

fn signer(args: &VerifyArgs, key: &[u8]) -> Result<Signer, String> {
    match (args.scheme, &args.header_name) {
        (VerifyScheme::Standard, _) => Signer::standard(key),
        (VerifyScheme::Hmac, None) => Err("scheme hmac needs --header-name".to_owned()),
        (VerifyScheme::Hmac, Some(header)) => {
            // No key that Postrider signs with ends in a newline; editors like to add one to a file.
            let key = key.strip_suffix(b"\n").unwrap_or(key);
            let key = key.strip_suffix(b"\r").unwrap_or(key);
            let encoding = match args.encoding {
                VerifyEncoding::Hex => SignatureEncoding::Hex,
                VerifyEncoding::Base64 => SignatureEncoding::Base64,
            };
            Signer::hmac(header.clone(), &args.prefix, encoding, key)
        }
    }
}

fn problems(args: &VerifyArgs, signer: &Signer, headers: &HeaderMap, body: &[u8]) -> Vec<String> {
    let standard = [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE];
    let needed: Vec<&HeaderName> = match args.scheme {
        VerifyScheme::Standard => standard.iter().collect(),
        VerifyScheme::Hmac => args.header_name.iter().collect(),
    };
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|name| !headers.contains_key(*name))
        .map(|name| format!("header {name} is missing"))
        .collect();
    if !missing.is_empty() {
        return missing;
    }
    let now = args.now.unwrap_or_else(|| SystemClock.now());
    let mut problems = Vec::new();
    // The signature is checked as of the time that the request names; that time is checked on its own.
    let mut claimed = now;
    if args.scheme == VerifyScheme::Standard {
        let seconds = text(headers, &WEBHOOK_TIMESTAMP).parse().ok();
        let Some(time) = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()) else {
            return vec![format!("{WEBHOOK_TIMESTAMP} is no number of seconds since 1970")];
        };
        claimed = time;
        let off = now.duration_since(time);
        if off.unsigned_abs() > args.tolerance {
            let (most, by) = (duration::format(args.tolerance), off.as_secs().unsigned_abs());
            let side = if off.is_negative() { "in the future" } else { "old" };
            problems.push(format!("the timestamp is {by}s {side}, more than {most}: {time}"));
        }
    }
    let fits = |body: &[u8]| signer.verify(headers, body, claimed).is_ok();
    if !fits(body) {
        problems.push(reason(args, headers, body, fits));
    }
    problems
}

/// Why a signature does not fit.
fn reason(args: &VerifyArgs, headers: &HeaderMap, body: &[u8], fits: impl Fn(&[u8]) -> bool) -> String {
    if let Some(flaw) = flaw(args, headers) {
        return flaw;
    }
    if let Some((what, _)) = variants(body).into_iter().find(|(_, variant)| fits(variant)) {
        return format!("the body was changed: the signature fits it {what}; keep the bytes that came");
    }
    let covered = match args.scheme {
        VerifyScheme::Standard => "the body or webhook-id was changed",
        VerifyScheme::Hmac => "the body was changed",
    };
    format!(
        "the signature does not fit: this is another key than it was made with, or {covered} ({} bytes of body)",
        body.len()
    )
}

/// What is wrong with the signature as it is written.
fn flaw(args: &VerifyArgs, headers: &HeaderMap) -> Option<String> {
    let is_base64 = |text: &str| STANDARD.decode(text).is_ok_and(|code| code.len() == CODE);
    let is_hex = |text: &str| hex::decode(text).is_ok_and(|code| code.len() == CODE);
    match (args.scheme, &args.header_name) {
        (VerifyScheme::Standard, _) | (_, None) => {
            let all = text(headers, &WEBHOOK_SIGNATURE);
            let mut signatures = all
                .split(' ')
                .filter_map(|one| one.strip_prefix("v1,"))
                .peekable();
            if signatures.peek().is_none() {
                return Some(format!(
                    "{WEBHOOK_SIGNATURE} holds no signature that begins with \"v1,\""
                ));
            }
            (!signatures.any(is_base64))
                .then(|| format!("{WEBHOOK_SIGNATURE} is damaged: it is not base64 of {CODE} bytes"))
        }
        (VerifyScheme::Hmac, Some(name)) => {
            let Some(signature) = text(headers, name).strip_prefix(args.prefix.as_str()) else {
                return Some(format!("header {name} does not begin with {:?}", args.prefix));
            };
            match args.encoding {
                VerifyEncoding::Hex if is_hex(signature) => signature
                    .bytes()
                    .any(|byte| byte.is_ascii_uppercase())
                    .then(|| format!("header {name} is in upper case; Postrider writes lower case")),
                VerifyEncoding::Base64 if is_base64(signature) => None,
                VerifyEncoding::Hex if is_base64(signature) => {
                    Some(format!("header {name} is base64; say --encoding base64"))
                }
                VerifyEncoding::Base64 if is_hex(signature) => {
                    Some(format!("header {name} is hexadecimal; say --encoding hex"))
                }
                _ if args.prefix.is_empty() && signature.contains('=') => Some(format!(
                    "header {name} is no signature alone; say what is before it with --prefix"
                )),
                _ => Some(format!(
                    "header {name} is damaged: it is not {CODE} bytes in this encoding"
                )),
            }
        }
    }
}

/// The body before what usually happens to bodies.
fn variants(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut variants = vec![
        ("without white space at its end", body.trim_ascii_end().to_vec()),
        ("with a newline at its end", [body, b"\n"].concat()),
    ];
    if let Ok(text) = std::str::from_utf8(body) {
        variants.push(("with LF instead of CRLF", text.replace("\r\n", "\n").into_bytes()));
        let text = text.trim_start_matches('\u{feff}');
        variants.push(("without a byte order mark", text.as_bytes().to_vec()));
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            variants.push(("as JSON without spaces", value.to_string().into_bytes()));
        }
    }
    variants
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::plugin::{Command, Plugin};
    use crate::domain::id::EventId;

    const KEY: &[u8] = b"whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
    const BODY: &[u8] = b"{\"b\":1,\"a\":\"x\"}";

    fn args(more: &[&str]) -> VerifyArgs {
        let all = [
            "p",
            "verify",
            "--secret",
            "k",
            "--body",
            "b",
            "--now",
            "2025-01-01T00:00:00Z",
        ];
        match Plugin::parse_from(all.iter().chain(more)).command {
            Command::Verify(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn signed(args: &VerifyArgs, at: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let id = EventId::parse("evt-1").unwrap();
        let signer = signer(args, KEY).unwrap();
        signer.sign(&id, at.parse().unwrap(), BODY, &mut headers);
        headers
    }

    #[track_caller]
    fn says(args: &VerifyArgs, key: &[u8], headers: &HeaderMap, body: &[u8], words: &[&str]) {
        let found = problems(args, &signer(args, key).unwrap(), headers, body);
        let fit =
            found.len() == words.len() && found.iter().zip(words).all(|(text, word)| text.contains(word));
        assert!(fit, "{found:?} instead of {words:?}");
    }

    #[test]
    fn each_reason_is_named() {
        let args = args(&[]);
        let headers = signed(&args, "2025-01-01T00:04:00Z");
        let other = b"whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh\n";
        says(&args, KEY, &headers, BODY, &[]);
        says(&args, &[KEY, b"\n"].concat(), &headers, BODY, &[]);
        says(&args, other, &headers, BODY, &["another key"]);
        says(&args, KEY, &headers, b"{}", &["webhook-id was changed"]);
        says(
            &args,
            KEY,
            &headers,
            &[BODY, b"\n"].concat(),
            &["without white space"],
        );
        says(
            &args,
            KEY,
            &headers,
            b"{\n  \"b\": 1,\n  \"a\": \"x\"\n}",
            &["JSON without spaces"],
        );
        says(
            &args,
            KEY,
            &HeaderMap::new(),
            BODY,
            &["webhook-id", "webhook-timestamp", "webhook-signature"],
        );

        let old = signed(&args, "2024-12-31T23:00:00Z");
        says(&args, KEY, &old, BODY, &["3600s old, more than 5m"]);
        says(&args, other, &old, BODY, &["old", "another key"]);
        says(
            &args,
            KEY,
            &signed(&args, "2025-01-01T01:00:00Z"),
            BODY,
            &["in the future"],
        );

        for (value, word) in [("v2,abc", "begins with"), ("v1,abc", "damaged")] {
            let mut headers = headers.clone();
            headers.insert(WEBHOOK_SIGNATURE, value.parse().unwrap());
            says(&args, KEY, &headers, BODY, &[word]);
        }
        let mut headers = headers.clone();
        headers.insert(WEBHOOK_TIMESTAMP, "soon".parse().unwrap());
        says(&args, KEY, &headers, BODY, &["seconds since 1970"]);
    }

    #[test]
    fn a_wider_tolerance_is_heeded() {
        let args = args(&["--tolerance", "2h"]);
        says(&args, KEY, &signed(&args, "2024-12-31T23:00:00Z"), BODY, &[]);
    }

    #[test]
    fn a_plain_signature_is_explained_too() {
        let plain = |more: &[&str]| args(&[&["--scheme", "hmac", "--header-name", "X-Sig"], more].concat());
        let headers = signed(&plain(&["--prefix", "sha256="]), "2020-01-01T00:00:00Z");
        says(&plain(&["--prefix", "sha256="]), KEY, &headers, BODY, &[]);
        says(
            &plain(&["--prefix", "sha256="]),
            &[KEY, b"\r\n"].concat(),
            &headers,
            BODY,
            &[],
        );
        says(
            &plain(&["--prefix", "sha256="]),
            b"other",
            &headers,
            BODY,
            &["another key"],
        );
        says(
            &plain(&["--prefix", "sha1="]),
            KEY,
            &headers,
            BODY,
            &["does not begin with"],
        );
        says(&plain(&[]), KEY, &headers, BODY, &["--prefix"]);
        let base64 = plain(&["--prefix", "sha256=", "--encoding", "base64"]);
        says(&base64, KEY, &headers, BODY, &["--encoding hex"]);
        says(&plain(&[]), KEY, &HeaderMap::new(), BODY, &["x-sig is missing"]);
    }
}
