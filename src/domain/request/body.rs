//! [`BodyForm`]: what becomes of a rendered body before it is signed and sent.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue};
use url::form_urlencoded::byte_serialize;

use crate::domain::event::json::{self as reader, Kind};
use crate::domain::shape::{JSON, Rendered};
use crate::domain::template::MAX_OUTPUT;

/// Content type of forms.
pub const FORM: &str = "application/x-www-form-urlencoded";
/// Most bytes of names and values of `ce-` headers together: more are taken by few receivers.
pub const MAX_ATTRIBUTES: usize = 16 * 1024;

/// What becomes of a rendered body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyForm {
    /// Nothing.
    #[default]
    AsItIs,
    /// It gets another content type.
    Labelled(&'static str),
    /// Its members become the fields of a form.
    Form,
    /// Its attributes become headers, its data the body: the binary mode of CloudEvents.
    Binary,
}

/// Why a body cannot have its form. Terminal: the same event fails again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A form has names, which only an object's members have.
    #[error("a form needs an object, and this body is none; change payload or contentType")]
    NoObject,
    /// The form would be over the bound of bodies.
    #[error("the form would be over {MAX_OUTPUT} bytes; send less of the event")]
    TooLarge,
    /// The headers would be over the bound.
    #[error(
        "the CloudEvent's attributes would be over {MAX_ATTRIBUTES} bytes of headers; send less of the event, or use \
         cloudEvents: Structured"
    )]
    TooManyAttributes,
}

/// Headers that belong to a body.
pub type Attributes = Vec<(HeaderName, HeaderValue)>;

impl BodyForm {
    /// Gives a body its form.
    ///
    /// # Errors
    /// When this body cannot have it.
    pub fn apply(self, rendered: Rendered) -> Result<(Rendered, Attributes), FormError> {
        let text = || std::str::from_utf8(&rendered.body).map_err(|_| FormError::NoObject);
        let (rendered, attributes) = match self {
            Self::AsItIs => (rendered, Attributes::new()),
            Self::Labelled(content_type) => {
                let body = rendered.body;
                (Rendered { content_type, body }, Attributes::new())
            }
            Self::Form => {
                let body = Bytes::from(form(text()?)?);
                let content_type = FORM;
                (Rendered { content_type, body }, Attributes::new())
            }
            Self::Binary => {
                let (attributes, data) = binary(text()?)?;
                let content_type = JSON;
                let body = Bytes::copy_from_slice(data.as_bytes());
                (Rendered { content_type, body }, attributes)
            }
        };
        Ok((rendered, attributes))
    }
}

/// An object as a form: `{"a": {"b": [1, true]}}` is `a[b][0]=1&a[b][1]=true`, percent-encoded. `null` is an empty value,
/// what is empty itself is left out.
fn form(text: &str) -> Result<String, FormError> {
    let text = text.trim();
    if reader::kind(text) != Kind::Object {
        return Err(FormError::NoObject);
    }
    let mut walk = Walk {
        text,
        at: 0,
        name: String::new(),
        form: String::with_capacity(text.len()),
    };
    walk.value()?;
    Ok(walk.form)
}

/// Goes through JSON that was checked when it was written, once.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// Name of the value that is next, encoded.
    name: String,
    form: String,
}

impl<'a> Walk<'a> {
    fn next(&mut self) -> Option<u8> {
        let rest = self.text.get(self.at..)?;
        self.at += rest.len() - rest.trim_start().len();
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.next() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// The text of a string, or of anything else that is no object and no array.
    fn scalar(&mut self) -> Cow<'a, str> {
        let is_string = self.next() == Some(b'"');
        let rest = self.text.get(self.at..).unwrap_or_default();
        let bytes = rest.as_bytes().iter().enumerate().skip(1);
        let mut escaped = false;
        let end = if is_string {
            let mut bytes = bytes.filter(|(_, byte)| {
                let closes = **byte == b'"' && !escaped;
                escaped = **byte == b'\\' && !escaped;
                closes
            });
            bytes.next().map(|(at, _)| at + 1)
        } else {
            let mut bytes =
                bytes.filter(|(_, byte)| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'));
            bytes.next().map(|(at, _)| at)
        };
        let raw = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.at += raw.len();
        match raw {
            "null" => Cow::Borrowed(""),
            raw => reader::text(raw).unwrap_or(Cow::Borrowed(raw)),
        }
    }

    fn value(&mut self) -> Result<(), FormError> {
        let (is_object, end) = match self.next() {
            Some(b'{') => (true, b'}'),
            Some(b'[') => (false, b']'),
            _ => return self.field(),
        };
        self.at += 1;
        let outer = self.name.len();
        let mut index = 0_usize;
        while !self.eat(end) {
            if is_object {
                let name = self.scalar();
                self.named(outer, &name);
                if !self.eat(b':') {
                    return Err(FormError::NoObject);
                }
            } else {
                self.named(outer, &index.to_string());
                index += 1;
            }
            self.value()?;
            self.name.truncate(outer);
            if !self.eat(b',') && self.next() != Some(end) {
                return Err(FormError::NoObject);
            }
        }
        Ok(())
    }

    fn named(&mut self, outer: usize, name: &str) {
        let encoded = byte_serialize(name.as_bytes());
        if outer == 0 {
            self.name.extend(encoded);
        } else {
            self.name.push_str("%5B");
            self.name.extend(encoded);
            self.name.push_str("%5D");
        }
    }

    fn field(&mut self) -> Result<(), FormError> {
        let value = self.scalar();
        if !self.form.is_empty() {
            self.form.push('&');
        }
        self.form.push_str(&self.name);
        self.form.push('=');
        self.form.extend(byte_serialize(value.as_bytes()));
        if self.form.len() > MAX_OUTPUT {
            return Err(FormError::TooLarge);
        }
        Ok(())
    }
}

/// Compresses a body; the same bytes give the same bytes, so every attempt sends what the first one sent.
#[must_use]
pub fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::default());
    // Writing into memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().map(Bytes::from).unwrap_or_default()
}

/// The attributes of a CloudEvent in JSON as headers, and its data (HTTP protocol binding 1.0, §3.1).
fn binary(text: &str) -> Result<(Attributes, &str), FormError> {
    let members = reader::members(text);
    let data = members.iter().find(|member| member.name == "data");
    let data = data.ok_or(FormError::NoObject)?.value;
    let mut attributes = Attributes::with_capacity(members.len());
    let mut bytes = 0_usize;
    for member in &members {
        if member.name == "data" || member.name == "datacontenttype" {
            continue;
        }
        let value = reader::text(member.value).unwrap_or(Cow::Borrowed(member.value));
        let value = percent_encoded(&value);
        let name = format!("ce-{}", member.name);
        bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
        if bytes > MAX_ATTRIBUTES {
            return Err(FormError::TooManyAttributes);
        }
        // Names of attributes are lower-case letters and digits, and values are visible ASCII now.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            attributes.push((name, value));
        }
    }
    Ok((attributes, data))
}

/// HTTP protocol binding §3.1.3.2: space, `"`, `%` and all that is not visible ASCII is encoded, byte by byte of UTF-8.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn json_body(body: &str) -> Rendered {
        Rendered {
            content_type: JSON,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn as_form(body: &str) -> Result<String, FormError> {
        let (rendered, attributes) = BodyForm::Form.apply(json_body(body))?;
        assert_eq!((rendered.content_type, attributes.len()), (FORM, 0));
        Ok(String::from_utf8(rendered.body.to_vec()).unwrap())
    }

    #[test]
    fn members_become_fields_named_by_their_way() {
        for (body, form) in [
            (
                r#"{"a":1,"b":"x y&z=ü","c":null,"d":true}"#,
                "a=1&b=x+y%26z%3D%C3%BC&c=&d=true",
            ),
            (
                r#"{"a":{"b":[1,{"c":"d"}]}}"#,
                "a%5Bb%5D%5B0%5D=1&a%5Bb%5D%5B1%5D%5Bc%5D=d",
            ),
            (
                r#" { "a" : [ 1 , 2 ] , "e" : { } , "f" : [ ] } "#,
                "a%5B0%5D=1&a%5B1%5D=2",
            ),
            (
                r#"{"n":123456789012345678901234567890.10}"#,
                "n=123456789012345678901234567890.10",
            ),
            (r#"{"q\"\\":"\"\\ \n,}]"}"#, "q%22%5C=%22%5C+%0A%2C%7D%5D"),
            ("{}", ""),
        ] {
            assert_eq!(as_form(body), Ok(form.to_owned()), "{body}");
        }
        for body in ["[]", "5", "\"text\"", "", "{\"a\""] {
            assert!(as_form(body).is_err(), "{body}");
        }
        let deep = format!("{}1{}", r#"{"aaaaaaaaaaaaaaaaaaaa":"#.repeat(60), "}".repeat(60));
        assert!(as_form(&deep).is_ok());
        let wide = format!("{{\"a\":[{}1]}}", "1,".repeat(200_000));
        assert_eq!(as_form(&wide), Err(FormError::TooLarge));
    }

    #[test]
    fn attributes_become_headers_and_data_the_body() {
        let event = r#"{"specversion":"1.0","id":"a b","type":"x","message":"Euro € \"100%\" 😀","n":7,
            "datacontenttype":"application/json","data":{"a": 1}}"#;
        let (rendered, attributes) = BodyForm::Binary.apply(json_body(event)).unwrap();
        assert_eq!(
            (rendered.content_type, &rendered.body[..]),
            (JSON, &br#"{"a": 1}"#[..])
        );
        let headers: Vec<_> = attributes
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        // The example of the specification, and one outside the basic plane.
        assert_eq!(
            headers,
            [
                ("ce-specversion", "1.0"),
                ("ce-id", "a%20b"),
                ("ce-type", "x"),
                ("ce-message", "Euro%20%E2%82%AC%20%22100%25%22%20%F0%9F%98%80"),
                ("ce-n", "7"),
            ]
        );
        let long = json!({"id": "x".repeat(MAX_ATTRIBUTES), "data": 1}).to_string();
        let refused = BodyForm::Binary.apply(json_body(&long));
        assert_eq!(refused, Err(FormError::TooManyAttributes));
    }

    #[test]
    fn compressed_bytes_are_the_same_each_time_and_read_back() {
        use std::io::Read as _;
        let body = r#"{"a": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}"#.repeat(100);
        let compressed = gzip(body.as_bytes());
        assert_eq!(compressed, gzip(body.as_bytes()));
        assert!(compressed.len() < body.len() / 10);
        let mut read = String::new();
        flate2::read::GzDecoder::new(&compressed[..])
            .read_to_string(&mut read)
            .unwrap();
        assert_eq!(read, body);
    }

    proptest! {
        #[test]
        fn every_text_value_of_a_form_reads_back(name in "[^\\[\\]]{1,20}", value in ".{0,40}") {
            let body = json!({(name.clone()): value.clone()}).to_string();
            let form = as_form(&body).unwrap();
            let read: Vec<_> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
            prop_assert_eq!(read, vec![(name, value)]);
        }

        #[test]
        fn no_text_breaks_the_walk(body in ".{0,60}") {
            let _ = as_form(&body);
            let _ = as_form(&format!("{{{body}"));
        }
    }
}
