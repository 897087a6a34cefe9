//! `verify`: whether a request is genuine and, if not, why.
//!
//! The check itself is `domain`'s. What is added is a search for the usual reasons: a header that got lost, a body
//! that was read and written anew, a key that was decoded or was not, another way to write the signature.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Report, Verdict, VerifyAlgorithm, VerifyArgs, VerifyEncoding, VerifyScheme, input};
use crate::api::v1alpha1::event_destination::{SignatureAlgorithm, SignatureEncoding};
use crate::domain::duration;
use crate::domain::secret::Secret;
use crate::domain::signature::content::Content;
use crate::domain::signature::key::Key;
use crate::domain::signature::{
    GITHUB_PREFIX, GITHUB_SIGNATURE, KEY_PREFIX, PUBLIC_PREFIX, Received, STRIPE_SIGNATURE, Scheme,
    Signature, WEBHOOK_ID, WEBHOOK_TIMESTAMP,
};
use crate::engine::clock::{Clock as _, SystemClock};

/// Checks the request.
///
/// # Errors
/// When a file or the key cannot be used.
pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<Report> {
    let key = Secret::new(input::bytes(&args.secret)?);
    let body = input::bytes(&args.body)?;
    let headers: HeaderMap = args.header.iter().cloned().collect();
    let problems = problems(args, key.expose(), &headers, &body).map_err(|detail| anyhow::anyhow!(detail))?;
    let mut report = Report::default();
    let genuine = problems.is_empty();
    if !genuine {
        report.at_least(Verdict::Faulty);
    }
    let told = json!({"genuine": genuine, "problems": problems});
    if report.value(&told, args.output)? {
        return Ok(report);
    }
    if genuine {
        report.line("genuine");
    } else {
        for problem in problems {
            report.line(&format!("not genuine: {problem}"));
        }
    }
    Ok(report)
}

/// No plain key that Postrider signs with ends in a newline; editors like to add one to a file.
fn trimmed(key: &[u8]) -> &[u8] {
    let key = key.strip_suffix(b"\n").unwrap_or(key);
    key.strip_suffix(b"\r").unwrap_or(key)
}

fn algorithm(args: &VerifyArgs) -> SignatureAlgorithm {
    match args.algorithm {
        VerifyAlgorithm::Sha1 => SignatureAlgorithm::Sha1,
        VerifyAlgorithm::Sha256 => SignatureAlgorithm::Sha256,
        VerifyAlgorithm::Sha384 => SignatureAlgorithm::Sha384,
        VerifyAlgorithm::Sha512 => SignatureAlgorithm::Sha512,
    }
}

fn read_key(args: &VerifyArgs, key: &[u8]) -> Result<Key, String> {
    let read = match args.scheme {
        VerifyScheme::Standard => Key::standard(key),
        VerifyScheme::Ed25519 if key.starts_with(PUBLIC_PREFIX.as_bytes()) => Key::public(key),
        VerifyScheme::Ed25519 => Key::ed25519(key),
        VerifyScheme::Stripe | VerifyScheme::Github => Key::plain(SignatureAlgorithm::Sha256, trimmed(key)),
        VerifyScheme::Hmac => Key::plain(algorithm(args), trimmed(key)),
    };
    read.map_err(|detail| {
        let given = if key.starts_with(KEY_PREFIX.as_bytes()) && args.scheme == VerifyScheme::Ed25519 {
            "; this is a key of scheme standard"
        } else if key.starts_with(PUBLIC_PREFIX.as_bytes()) || key.starts_with(b"whsk_") {
            "; this is a key of scheme ed25519"
        } else {
            ""
        };
        format!("--secret: {detail}{given}")
    })
}

fn scheme(args: &VerifyArgs) -> Result<Scheme, String> {
    let named = |usual: HeaderName| args.header_name.clone().unwrap_or(usual);
    Ok(match args.scheme {
        VerifyScheme::Standard => Scheme::Standard,
        VerifyScheme::Ed25519 => Scheme::Ed25519,
        VerifyScheme::Stripe => Scheme::Stripe {
            header: named(STRIPE_SIGNATURE),
        },
        VerifyScheme::Github => Scheme::Plain {
            header: named(GITHUB_SIGNATURE),
            prefix: GITHUB_PREFIX.into(),
            encoding: SignatureEncoding::Hex,
            content: Content::body(),
        },
        VerifyScheme::Hmac => Scheme::Plain {
            header: args
                .header_name
                .clone()
                .ok_or("scheme hmac needs --header-name")?,
            prefix: args.prefix.as_str().into(),
            encoding: match args.encoding {
                VerifyEncoding::Hex => SignatureEncoding::Hex,
                VerifyEncoding::Base64 => SignatureEncoding::Base64,
            },
            content: Content::parse(&args.signed_content)
                .map_err(|detail| format!("--signed-content: {detail}"))?,
        },
    })
}

/// What is wrong with the request; nothing when it is genuine.
fn problems(
    args: &VerifyArgs,
    secret: &[u8],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Vec<String>, String> {
    let scheme = scheme(args)?;
    let signature = Signature::new(scheme.clone(), read_key(args, secret)?);
    let mut needed = vec![scheme.header().clone()];
    let dated = match &scheme {
        Scheme::Standard | Scheme::Ed25519 => {
            needed = vec![WEBHOOK_ID, WEBHOOK_TIMESTAMP, scheme.header().clone()];
            true
        }
        Scheme::Stripe { .. } => true,
        Scheme::Plain { content, .. } => {
            if content.covers_time() {
                needed.push(WEBHOOK_TIMESTAMP);
            }
            content.covers_time()
        }
    };
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|name| !headers.contains_key(name))
        .map(|name| format!("header {name} is missing"))
        .collect();
    if !missing.is_empty() {
        return Ok(missing);
    }
    let now = args.now.unwrap_or_else(|| SystemClock.now());
    let mut problems = Vec::new();
    // The signature is checked as of the time that the request names; that time is checked on its own.
    let mut claimed = now;
    if dated {
        let (place, seconds) = match &scheme {
            Scheme::Stripe { header } => {
                let mut parts = text(headers, header).split(',');
                let time = parts.find_map(|part| part.trim().strip_prefix("t="));
                (format!("t= in header {header}"), time.unwrap_or_default())
            }
            _ => (WEBHOOK_TIMESTAMP.to_string(), text(headers, &WEBHOOK_TIMESTAMP)),
        };
        let seconds = seconds.parse().ok();
        let Some(time) = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()) else {
            return Ok(vec![format!("{place} is no number of seconds since 1970")]);
        };
        claimed = time;
        let off = now.duration_since(time);
        if off.unsigned_abs() > args.tolerance {
            let (most, by) = (duration::format(args.tolerance), off.as_secs().unsigned_abs());
            let side = if off.is_negative() { "in the future" } else { "old" };
            problems.push(format!("the timestamp is {by}s {side}, more than {most}: {time}"));
        }
    }
    let fits = |signature: &Signature, body: &[u8]| {
        let request = Received {
            headers,
            body,
            url: &args.url,
            method: &args.method,
        };
        signature.verify(&request, claimed).is_ok()
    };
    if !fits(&signature, body) {
        problems.push(reason(args, &signature, secret, headers, body, fits));
    }
    Ok(problems)
}

/// Why a signature does not fit.
fn reason(
    args: &VerifyArgs,
    signature: &Signature,
    secret: &[u8],
    headers: &HeaderMap,
    body: &[u8],
    fits: impl Fn(&Signature, &[u8]) -> bool,
) -> String {
    if let Some(flaw) = flaw(signature, headers) {
        return flaw;
    }
    if let Some((what, _)) = variants(body)
        .into_iter()
        .find(|(_, variant)| fits(signature, variant))
    {
        return format!("the body was changed: the signature fits it {what}; keep the bytes that came");
    }
    if let Some((what, _)) = others(args, signature.scheme(), secret)
        .into_iter()
        .find(|(_, other)| fits(other, body))
    {
        return what;
    }
    let covered = match signature.scheme() {
        Scheme::Standard | Scheme::Ed25519 => "the body, webhook-id or webhook-timestamp was changed",
        Scheme::Stripe { .. } => "the body or the time was changed",
        Scheme::Plain { .. } if args.signed_content.contains("url") => {
            "the body or the URL was changed, or --url is another than the destination's"
        }
        Scheme::Plain { .. } => "the body was changed",
    };
    format!(
        "the signature does not fit: this is another key than it was made with, or {covered} ({} bytes of body)",
        body.len()
    )
}

/// Signatures as they are made by mistake, with what to do about it.
fn others(args: &VerifyArgs, scheme: &Scheme, secret: &[u8]) -> Vec<(String, Signature)> {
    let key = trimmed(secret);
    let body_of = |text: &[u8]| {
        let encoded = text.strip_prefix(KEY_PREFIX.as_bytes()).unwrap_or(text);
        STANDARD.decode(encoded).map(Zeroizing::new).ok()
    };
    let mut all = Vec::new();
    let mut push = |scheme: &Scheme, algorithm, key: &[u8], what: &str| {
        if let Ok(key) = Key::mac(algorithm, key) {
            all.push((what.to_owned(), Signature::new(scheme.clone(), key)));
        }
    };
    let own = if args.scheme == VerifyScheme::Hmac {
        algorithm(args)
    } else {
        SignatureAlgorithm::Sha256
    };
    match scheme {
        Scheme::Standard => {
            let what = "the signer did not decode the key: the signature fits the text of the key; the key is what \
                        base64 after whsec_ stands for";
            push(scheme, own, key, what);
            push(
                scheme,
                own,
                key.strip_prefix(KEY_PREFIX.as_bytes()).unwrap_or(key),
                what,
            );
        }
        Scheme::Ed25519 => {}
        Scheme::Stripe { .. } | Scheme::Plain { .. } => {
            if let Some(decoded) = body_of(key) {
                let what = "the key was decoded: the signature fits what base64 in it stands for; in this scheme the \
                            text itself is the key";
                push(scheme, own, &decoded, what);
            }
            if let Ok(decoded) = hex::decode(key) {
                let what = "the key was decoded: the signature fits what hexadecimal in it stands for; in this scheme \
                            the text itself is the key";
                push(scheme, own, &Zeroizing::new(decoded), what);
            }
            let newline = Zeroizing::new([key, b"\n"].concat());
            let what = "the signer's key ends in a newline; store it without, for example with printf instead of echo";
            push(scheme, own, &newline, what);
        }
    }
    if let Scheme::Plain {
        header,
        prefix,
        encoding,
        content,
    } = scheme
    {
        for source in [
            "{{ $.body }}",
            "{{ $.timestamp }}.{{ $.body }}",
            "{{ $.id }}.{{ $.timestamp }}.{{ $.body }}",
        ] {
            if let Ok(other) = Content::parse(source)
                && other != *content
            {
                let scheme = Scheme::Plain {
                    header: header.clone(),
                    prefix: prefix.clone(),
                    encoding: *encoding,
                    content: other,
                };
                let what =
                    format!("the signature covers something else: it fits --signed-content '{source}'");
                push(&scheme, own, key, &what);
            }
        }
    }
    all
}

/// What is wrong with the signature as it is written.
fn flaw(signature: &Signature, headers: &HeaderMap) -> Option<String> {
    let length = signature.keys().first()?.code_length();
    let name = signature.scheme().header();
    let given = text(headers, name);
    let is_base64 = |text: &str| STANDARD.decode(text).is_ok_and(|code| code.len() == length);
    let is_hex = |text: &str| hex::decode(text).is_ok_and(|code| code.len() == length);
    let standard = |version: &str, other: &str, scheme: &str| {
        let mut signatures = given
            .split(' ')
            .filter_map(|one| one.strip_prefix(version))
            .peekable();
        if signatures.peek().is_none() {
            let hint = if given.split(' ').any(|one| one.starts_with(other)) {
                format!("; it holds one that begins with {other:?}: say --scheme {scheme}")
            } else {
                String::new()
            };
            return Some(format!(
                "{name} holds no signature that begins with {version:?}{hint}"
            ));
        }
        (!signatures.any(is_base64)).then(|| format!("{name} is damaged: it is not base64 of {length} bytes"))
    };
    match signature.scheme() {
        Scheme::Standard => standard("v1,", "v1a,", "ed25519"),
        Scheme::Ed25519 => standard("v1a,", "v1,", "standard"),
        Scheme::Stripe { .. } => {
            let mut codes = given
                .split(',')
                .filter_map(|part| part.trim().strip_prefix("v1="))
                .peekable();
            if codes.peek().is_none() {
                return Some(format!("header {name} holds no v1="));
            }
            (!codes.any(is_hex))
                .then(|| format!("header {name} is damaged: v1= is not hexadecimal of {length} bytes"))
        }
        Scheme::Plain { prefix, encoding, .. } => {
            let Some(code) = given.strip_prefix(&**prefix) else {
                return Some(format!("header {name} does not begin with {prefix:?}"));
            };
            match encoding {
                SignatureEncoding::Hex if is_hex(code) => code
                    .bytes()
                    .any(|byte| byte.is_ascii_uppercase())
                    .then(|| format!("header {name} is in upper case; Postrider writes lower case")),
                SignatureEncoding::Base64 if is_base64(code) => None,
                SignatureEncoding::Hex if is_base64(code) => {
                    Some(format!("header {name} is base64; say --encoding base64"))
                }
                SignatureEncoding::Base64 if is_hex(code) => {
                    Some(format!("header {name} is hexadecimal; say --encoding hex"))
                }
                SignatureEncoding::Base64 if URL_SAFE.decode(code).is_ok() => Some(format!(
                    "header {name} is base64 with \"-\" and \"_\", which Postrider does not write"
                )),
                _ if prefix.is_empty() && code.trim_end_matches('=').contains('=') => Some(format!(
                    "header {name} is no signature alone; say what is before it with --prefix"
                )),
                _ => {
                    let other = [(20, "sha1"), (32, "sha256"), (48, "sha384"), (64, "sha512")]
                        .into_iter()
                        .find(|(bytes, _)| code.len() == 2 * bytes && hex::decode(code).is_ok());
                    Some(match other {
                        Some((bytes, word)) => {
                            format!("header {name} holds {bytes} bytes, not {length}; say --algorithm {word}")
                        }
                        None => {
                            format!("header {name} is damaged: it is not {length} bytes in this encoding")
                        }
                    })
                }
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
mod tests;
