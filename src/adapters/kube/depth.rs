//! The client of the API server, which takes no answer that nests too deep to be read.
//!
//! The API server stores objects of any depth where their schema leaves it open, such as `payload.template`; the JSON
//! reader gives up at a depth of 128. One such object would make every list that it is in unreadable, and with it the
//! objects of everybody else. So what is deeper than [`DEEPEST`] is left out of answers, with a `null` in its place.
//! Every part of our objects that may nest has a much smaller bound of its own, so an object from which something was
//! left out is refused, by name, when it is validated.

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::util::MapResponseLayer;

/// Objects and arrays that may be in each other, those of a list or of a watch around an object included.
const DEEPEST: u32 = 96;

/// A client for that configuration.
///
/// # Errors
/// When the configuration is unusable.
pub fn client(config: Config) -> kube::Result<Client> {
    let builder = ClientBuilder::try_from(config)?;
    Ok(builder.with_layer(&MapResponseLayer::new(shallow)).build())
}

/// The answer without what nests too deep, if it is JSON.
fn shallow<B: Body<Data = Bytes>>(
    response: Response<B>,
) -> Response<impl Body<Data = Bytes, Error = B::Error>> {
    let mut cutter = is_json(response.headers()).then(Cutter::default);
    response.map(|body| {
        body.map_frame(move |frame: Frame<Bytes>| match &mut cutter {
            Some(cutter) => frame.map_data(|chunk| cutter.cut(chunk)),
            None => frame,
        })
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    given.is_some_and(|given| given.starts_with("application/json"))
}

/// Where in a JSON text it is, or in several that follow each other.
#[derive(Debug, Default)]
struct Cutter {
    depth: u32,
    in_text: bool,
    is_escaped: bool,
}

impl Cutter {
    /// The next piece of the text, without what is too deep.
    fn cut(&mut self, chunk: Bytes) -> Bytes {
        let mut shortened: Option<BytesMut> = None;
        // Where the part begins that is still to be kept; `None` inside of what is left out.
        let mut kept_from = (self.depth <= DEEPEST).then_some(0);
        for (at, byte) in chunk.iter().enumerate() {
            match self.step(*byte) {
                Edge::None => {}
                Edge::Begins => {
                    let kept = kept_from.take().and_then(|from| chunk.get(from..at));
                    let shortened = shortened.get_or_insert_default();
                    shortened.extend_from_slice(kept.unwrap_or_default());
                    shortened.extend_from_slice(b"null");
                }
                Edge::Ends => kept_from = Some(at + 1),
            }
        }
        match (shortened, kept_from) {
            (None, Some(0)) => chunk,
            (shortened, kept_from) => {
                let mut shortened = shortened.unwrap_or_default();
                let rest = kept_from.and_then(|from| chunk.get(from..));
                shortened.extend_from_slice(rest.unwrap_or_default());
                shortened.freeze()
            }
        }
    }

    fn step(&mut self, byte: u8) -> Edge {
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if self.in_text => self.is_escaped = true,
            b'"' => self.in_text = !self.in_text,
            _ if self.in_text => {}
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                if self.depth == DEEPEST + 1 {
                    return Edge::Begins;
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == DEEPEST {
                    return Edge::Ends;
                }
            }
            _ => {}
        }
        Edge::None
    }
}

/// What a byte means for what is left out.
enum Edge {
    None,
    Begins,
    Ends,
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn nested(depth: usize, inner: Value) -> Value {
        (0..depth).fold(inner, |value, level| match level % 2 {
            0 => json!({"a\"{": value, "b": 1}),
            _ => json!(["]}\\", value]),
        })
    }

    /// The text in pieces of that many bytes.
    fn cut(text: &str, piece: usize) -> String {
        let mut cutter = Cutter::default();
        let pieces = text.as_bytes().chunks(piece);
        let cut: Vec<u8> = pieces
            .flat_map(|piece| cutter.cut(Bytes::copy_from_slice(piece)))
            .collect();
        String::from_utf8(cut).unwrap()
    }

    #[test]
    fn what_nests_too_deep_is_left_out_and_everything_around_it_stays() {
        let deep = |depth| json!({"items": [{"deep": nested(depth, json!("x")), "after": [1]}, "next"]});
        // Three are around it.
        let left = usize::try_from(DEEPEST).unwrap() - 3;
        for depth in [left + 1, left + 2, 500] {
            let read: Value = serde_json::from_str(&cut(&deep(depth).to_string(), 7)).unwrap();
            let way = (0..left).fold(String::from("/items/0/deep"), |way, step| {
                way + if (depth - 1 - step) % 2 == 0 {
                    "/a\"{"
                } else {
                    "/1"
                }
            });
            let mut expected = deep(depth);
            *expected.pointer_mut(&way).unwrap() = Value::Null;
            assert_eq!(read, expected, "{depth}");
        }
    }

    #[test]
    fn what_is_shallow_is_passed_on_as_it_is_without_a_copy() {
        let chunk = Bytes::from(nested(90, json!("x")).to_string());
        let passed = Cutter::default().cut(chunk.clone());
        assert_eq!(passed.as_ptr(), chunk.as_ptr());
        assert_eq!(passed, chunk);
    }

    #[test]
    fn what_is_no_json_is_left_alone() {
        let text = "[".repeat(200);
        let body = http_body_util::Full::new(Bytes::from(text.clone()));
        let mut response = Response::new(body);
        let plain = http::HeaderValue::from_static("text/plain");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        let mut body = shallow(response).into_body();
        let frame: Option<Result<_, Infallible>> = futures::executor::block_on(body.frame());
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), text);
    }

    proptest! {
        #[test]
        fn texts_that_follow_each_other_are_cut_alike_however_they_are_split(
            depths in prop::collection::vec(0_usize..130, 1..4), piece in 1_usize..64,
        ) {
            let texts: Vec<String> = depths.iter().map(|depth| nested(*depth, json!({"x": "}"})).to_string()).collect();
            let whole: String = texts.iter().map(|text| cut(text, usize::MAX) + "\n").collect();
            let split = cut(&(texts.join("\n") + "\n"), piece);
            prop_assert_eq!(&split, &whole);
            for line in split.lines() {
                prop_assert!(serde_json::from_str::<Value>(line).is_ok());
            }
        }
    }
}
