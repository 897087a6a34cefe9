//! Strict JSON: duplicate names, halves of characters, numbers, nesting, and members cut out as they were written.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn flaws(text: &str) -> Vec<(String, FaultReason)> {
    let item = value(text).unwrap();
    item.flaws
        .iter()
        .map(|flaw| (flaw.pointer.to_string(), flaw.reason))
        .collect()
}

fn one(pointer: &str, reason: FaultReason) -> Vec<(String, FaultReason)> {
    vec![(pointer.to_owned(), reason)]
}

#[test]
fn duplicate_names_are_found_at_any_depth() {
    let duplicate = FaultReason::DuplicateKey;
    assert_eq!(flaws(r#"{"a":1,"a":2}"#), one("/a", duplicate));
    assert_eq!(flaws(r#"{"x":{"a":1},"y":{"a":1}}"#), []);
    assert_eq!(
        flaws(r#"{"data":[{},{"b":{"c":1,"c":1}}]}"#),
        one("/data/1/b/c", duplicate)
    );
    assert_eq!(flaws(r#"{"a":1,"\u0061":2}"#), one("/a", duplicate));
    assert_eq!(flaws(r#"{"a/b~":{"c":1,"c":1}}"#), one("/a~1b~0/c", duplicate));
    let many: Vec<String> = (0..100).map(|n| format!("\"k{n}\":{{\"a\":1}}")).collect();
    assert_eq!(flaws(&format!("{{{}}}", many.join(","))), []);
    assert_eq!(
        flaws(&format!("{{{},\"k3\":0,\"k99\":0}}", many.join(","))).len(),
        2
    );
}

#[test]
fn strings_hold_no_nul_and_no_half_characters() {
    assert_eq!(
        flaws(r#"{"a":["\u0000"]}"#),
        one("/a/0", FaultReason::NulCharacter)
    );
    assert_eq!(
        flaws(r#"{"a":{"k\u0000":1}}"#),
        one("/a", FaultReason::NulCharacter)
    );
    assert_eq!(flaws(r#"["\ud83d"]"#), one("/0", FaultReason::LoneSurrogate));
    assert_eq!(flaws(r#"["\ude00"]"#), one("/0", FaultReason::LoneSurrogate));
    assert_eq!(
        flaws(r#"["\ud83d\ud83d\ude00"]"#),
        one("/0", FaultReason::LoneSurrogate)
    );
    assert_eq!(flaws(r#"["\ud83d\ude00\u00e9\\u0000"]"#), []);
}

#[test]
fn numbers_must_fit_a_double() {
    assert_eq!(flaws("[1e400]"), one("/0", FaultReason::NumberRange));
    assert_eq!(flaws("[-1E+999999999999]"), one("/0", FaultReason::NumberRange));
    assert_eq!(
        flaws(&format!("[{}]", "9".repeat(400))),
        one("/0", FaultReason::NumberRange)
    );
    assert_eq!(
        flaws(&format!(
            "[1e308,1e-999,123456789012345678901234567890,0.{}]",
            "1".repeat(400)
        )),
        []
    );
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(flaws(&nested(64)), []);
    assert_eq!(flaws(&nested(65)), one(&"/0".repeat(64), FaultReason::TooDeep));
    let halt = value(&"[".repeat(1_000_000)).unwrap_err();
    assert_eq!(halt.reason, FaultReason::TooDeep);
    assert_eq!(
        value(&"{\"a\":".repeat(1_000_000)).unwrap_err().reason,
        FaultReason::TooDeep
    );
}

#[test]
fn flaws_are_bounded_and_counted() {
    let item = value(&format!("[{}0]", r#""\u0000","#.repeat(10_000)))
        .map(|item| (item.flaws.len(), item.flaw_count));
    assert_eq!(item, Ok((MAX_FLAWS, 10_000)));
}

#[test]
fn members_are_cut_out_as_they_were_written() {
    let cut = |text| {
        members(text)
            .into_iter()
            .map(|member| (member.name.into_owned(), member.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        cut("{ \"a\" : 1.50 , \"b\\n\":{ \"c\" : [ 1 ] } }"),
        [("a".to_owned(), "1.50"), ("b\n".to_owned(), "{ \"c\" : [ 1 ] }")]
    );
    assert_eq!(cut("{}"), []);
    assert_eq!(cut("[1]"), []);
    assert_eq!(cut("nonsense"), []);
}

#[test]
fn text_is_what_a_string_means() {
    assert_eq!(text(r#""a\"\u00e9""#).as_deref(), Some("a\"é"));
    assert_eq!(text("\"plain\"").as_deref(), Some("plain"));
    for other in ["1", "\"", "\"\\ud800\"", ""] {
        assert_eq!(text(other), None, "{other}");
    }
}

fn jsonish() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\""),
        Just("\\"),
        Just("\\u00"),
        Just("\"a\""),
        Just("\"b\":"),
        Just("0"),
        Just("-"),
        Just("1"),
        Just("."),
        Just("e"),
        Just("+"),
        Just("true"),
        Just("null"),
        Just("fals"),
        Just(" "),
        Just("\n"),
        Just("\u{0}"),
        Just("é"),
        Just("\"\\ud83d\\ude00\""),
    ];
    prop_oneof![
        prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat()),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn what_is_json_is_what_serde_says_is_json(text in jsonish()) {
        let ours = value(&text).is_ok();
        let theirs = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", text);
    }

    #[test]
    fn unflawed_json_is_read_by_serde_in_full(text in jsonish()) {
        if let Ok(item) = value(&text)
            && item.flaw_count == 0
        {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn documents_never_panic(text in jsonish()) {
        let _ = document(&text, 3);
        let _ = super::text(&text);
        let _ = kind(&text);
    }
}
