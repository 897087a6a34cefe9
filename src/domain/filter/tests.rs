use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::event::sample;

fn event() -> Event {
    sample::event(&json!({
        "id": "e1", "type": "order.paid", "timestamp": 1_729_629_642_607_i64, "message": "Order paid",
        "user": {"id": "u1", "metadata": {"plan": "pro"}}, "error": {"message": "rate limit reached"},
        "data": {
            "total": 42, "price": 9.5, "big": 18_446_744_073_709_551_615_u64, "negative": -1, "none": null, "yes": true,
            "tags": ["new", "eu"], "items": [{"sku": "a", "count": 2}, {"sku": "b", "count": 5}],
            "nested": {"deep": {"er": "x"}},
        },
    }))
}

fn judge(filter: &str) -> Result<(), NoMatch> {
    let filter = Filter::parse(filter).unwrap_or_else(|fault| panic!("{filter}: {fault}"));
    filter.matches(&Facts::of(&event()))
}

#[test]
fn conditions_read_the_event_its_project_and_its_user() {
    for filter in [
        "true",
        "event.type == 'order.paid'",
        "event.data.total > 40 && event.data.total + 1 == 43",
        "event.data.total * 2 - 4 == 80",
        "event.data.price > 9",
        "event.data.big > 1",
        "event.data.negative < 0",
        "event.data.none == null",
        "event.data.yes",
        "event.data['total'] == 42 && event.data.tags[0] == 'new'",
        "event.error.message.contains('rate limit')",
        "event.message.startsWith('Order') && event.message.endsWith(\"paid\")",
        "event.message.matches('^Ord.r [a-z]{4}$')",
        r"event.message.matches(r'(?i)^ORDER \w+$')",
        "'eu' in event.data.tags && event.type in ['order.paid', 'order.sent']",
        "event.data.tags.exists(tag, tag == 'eu')",
        "event.data.items.all(item, item.count >= 2)",
        "event.data.items.exists_one(item, item.sku == 'a')",
        "size(event.data.items) == 2 && event.data.tags.size() == 2",
        "user.id == 'u1' && user.metadata.plan == 'pro' && event.user.id == user.id",
        "project.name == 'Test Project Name' && event.environment == 'production'",
        "has(event.data.total) && !has(event.data.absent)",
        "!has(event.data.absent) || event.data.absent > 1",
        "event.data.total > 100 ? false : true",
        "event.timestamp > 1729629642606",
        "event.data.nested.deep.er == 'x'",
    ] {
        assert_eq!(judge(filter), Ok(()), "{filter}");
    }
}

#[test]
fn no_match_says_why() {
    for (filter, why) in [
        ("event.type == 'other'", NoMatch::False),
        ("event.data.absent == 1", NoMatch::MissingKey),
        ("event.workflow.id == 'w'", NoMatch::MissingKey),
        ("event.message", NoMatch::NotBoolean),
        ("event.data.total", NoMatch::NotBoolean),
        ("event.message + 1 == 'x'", NoMatch::Failed),
        ("event.data.total / 0 == 1", NoMatch::Failed),
        ("9223372036854775807 + event.data.total > 0", NoMatch::Failed),
        ("event.data.tags[7] == 'x'", NoMatch::Failed),
        ("event.message > 5", NoMatch::Failed),
    ] {
        assert_eq!(judge(filter), Err(why), "{filter}");
    }
}

#[test]
fn an_event_without_a_user_has_an_empty_one() {
    let event = sample::event(&json!({"type": "x"}));
    let facts = Facts::of(&event);
    let matches = |filter| Filter::parse(filter).unwrap().matches(&facts);
    assert_eq!(matches("!has(user.id)"), Ok(()));
    assert_eq!(matches("!has(user.metadata.plan)"), Ok(()));
    assert_eq!(matches("user.id == 'u'"), Err(NoMatch::MissingKey));
}

#[test]
fn a_fault_has_its_place_and_a_remedy() {
    for (filter, fault) in [
        (
            "",
            "the filter is empty; leave it out to have every event of the types",
        ),
        ("event.type ==", "at line 1 column 14: "),
        (
            "event.type == 'a' &&\n  event.data. == 1",
            "at line 2 column 15: ",
        ),
        (
            "evnt.type == 'a'",
            "at line 1 column 1: there is no variable \"evnt\"; there are event, project, user",
        ),
        (
            "true && timestamp(event.timestampISO) > 1",
            "at line 1 column 18: there is no function \"timestamp\"; there are bool, contains, ",
        ),
        (
            "event.data.tags.map(x, x)",
            "`map` and `filter` build lists; use `all`, `exists` or `exists_one`",
        ),
        (
            "event.data.tags.filter(x, true)",
            "`map` and `filter` build lists",
        ),
        (
            "event.data.a.all(x, event.data.b.all(y, x == y))",
            "`all`, `exists` and `exists_one` cannot stand within each other",
        ),
        ("event.data.a.all(x, x + x == 'a')", "there are no sums within"),
        (
            "event.data.a.all(x, x.matches('a'))",
            "`matches` cannot stand within",
        ),
        (
            "event.message.matches(event.data.pattern)",
            "`matches` takes a text that stands in the filter",
        ),
        (
            "true && event.message.matches('(')",
            "at line 1 column 31: the pattern \"(\" of `matches` is no regular expression",
        ),
        (
            r"event.message.matches(r'\w{100}')",
            "the pattern of `matches` is too large; repeat less",
        ),
        (
            "event.message.matches('(a{100}){100}')",
            "the pattern of `matches` is too large; repeat less",
        ),
        (
            "event.message.matches('(?i)[a-z]{200}')",
            "the pattern of `matches` is too large",
        ),
        ("event.message in [event.type]", "a list may hold constants only"),
        ("{'a': 1} == event", "objects cannot be made in a filter"),
    ] {
        let found = Filter::parse(filter).unwrap_err();
        assert!(found.contains(fault), "{filter}: {found}");
    }
}

/// Texts of the greatest length that make a parser, or an evaluation, recurse.
fn chains() -> Vec<String> {
    let fill = |first: &str, more: &str, end: &str| {
        let count = (MAX_FILTER - first.len() - end.len()) / more.len();
        format!("{first}{}{end}", more.repeat(count))
    };
    let pairs = [
        ("(", ")"),
        ("[", "]"),
        ("!(", ")"),
        ("size(", ")"),
        ("-(", ")"),
        ("a[", "]"),
        ("{1:", "}"),
    ];
    let mut chains: Vec<String> = pairs
        .iter()
        .map(|(open, close)| {
            let count = (MAX_FILTER - 1) / (open.len() + close.len());
            format!("{}1{}", open.repeat(count), close.repeat(count))
        })
        .collect();
    for (first, more, end) in [
        ("1", "+1", ""),
        ("1", "-1", ""),
        ("1", "*1", ""),
        ("1", "&&1", ""),
        ("1", "||1", ""),
        ("1", "==1", ""),
        ("1", "<1", ""),
        ("event", ".a", ""),
        ("event", "[0]", ""),
        ("event", ".a()", ""),
        ("event", ".b(1)", ""),
        ("", "!", "true"),
        ("", "-", "1"),
        ("1", "?1:1", ""),
        ("", "1?", "1"),
        ("1", " in 1", ""),
        ("", "(", ""),
        ("", "[", ""),
        ("", "{", ""),
        ("", "a(", ""),
        ("", "a.all(b,", ""),
        ("", "\"", ""),
        ("", "'a' ", ""),
        ("", "has(", ""),
        ("", "\\", ""),
        ("", ".", ""),
        ("", "a.", ""),
        ("", "?", ""),
        ("", "`", ""),
        ("event", ".all(x,x)", ""),
        ("x", ".exists(x,true)", ""),
    ] {
        chains.push(fill(first, more, end));
    }
    chains
}

#[test]
fn the_longest_chains_neither_overflow_the_stack_nor_take_long() {
    // Half of the stack that a thread has.
    let small = std::thread::Builder::new().stack_size(1024 * 1024);
    let work = small.spawn(|| {
        let facts = Facts::of(&event());
        for chain in chains() {
            assert!(chain.len() <= MAX_FILTER);
            if let Ok(filter) = Filter::parse(&chain) {
                let _ = filter.matches(&facts);
            }
        }
    });
    work.unwrap().join().unwrap();
    let long = format!("event.type == '{}'", "a".repeat(MAX_FILTER));
    assert_eq!(Filter::parse(&long).unwrap_err(), "the filter is over 1024 bytes");
}

#[test]
fn a_long_list_is_not_gone_over() {
    let with = |count: usize| {
        let list: Vec<usize> = (0..count).collect();
        Facts::of(&sample::event(&json!({"type": "x", "data": {"list": list}})))
    };
    let filter = Filter::parse("event.data.list.exists(n, n == 3)").unwrap();
    assert!(filter.is_slow());
    assert_eq!(filter.matches(&with(MAX_ELEMENTS)), Ok(()));
    assert_eq!(
        filter.matches(&with(MAX_ELEMENTS + 1)),
        Err(NoMatch::TooManyElements)
    );
    let plain = Filter::parse("3 in event.data.list").unwrap();
    assert!(!plain.is_slow());
    assert_eq!(plain.matches(&with(MAX_ELEMENTS + 1)), Ok(()));
}

#[test]
fn patterns_may_be_as_large_as_the_guide_says() {
    let parses = |pattern: &str| Filter::parse(&format!("event.message.matches(r'{pattern}')")).is_ok();
    for (fits, too_large) in [
        (r"^\w{7}$", r"^\w{9}$"),
        ("[0-9]{110}", "[0-9]{130}"),
        (r"(?i)inv-[0-9]+", "(?i)[a-z]{40}"),
    ] {
        assert!(parses(fits), "{fits}");
        assert!(!parses(too_large), "{too_large}");
    }
}

#[test]
fn the_whole_event_is_not_gone_over_for_each_element_of_a_long_list() {
    let list: Vec<Vec<u8>> = vec![vec![1; 100]; 1000];
    let facts = Facts::of(&sample::event(
        &json!({"type": "x", "data": {"list": list, "one": 1}}),
    ));
    for filter in [
        "event.data.list.all(x, event == event)",
        "event.data.list.all(x, x != event)",
        "event.data.list.exists(x, event + 1 == 2)",
        "event.data.list.exists(x, (true ? event : x) > x)",
        "event.data.list.exists(x, event.data.list[1.5] == 2)",
        "event.data.list.exists(x, event.data.one in event.data.list)",
        "event.data.list.exists(x, string(event.data) == 'a')",
        "['a'].all(x, size(event.data.list) > 0)",
    ] {
        let filter = Filter::parse(filter).unwrap();
        let expected = match filter.source() {
            // Equality looks at no more than the smaller side.
            "event.data.list.all(x, x != event)" => Ok(()),
            _ => Err(NoMatch::TooMuchWork),
        };
        assert_eq!(filter.matches(&facts), expected, "{}", filter.source());
    }
    for filter in [
        "event.data.list.all(x, x == x && size(x) == 100 && x[0] == 1 && 1 in x && !(x[1] in [2, 3]))",
        "event.data.list.exists_one(x, x == event.data.one) || true",
        "event.data.list == event.data.list && event.data.list != event.data.one",
        "event.data.list.all(x, has(event.data.one))",
    ] {
        assert_eq!(Filter::parse(filter).unwrap().matches(&facts), Ok(()), "{filter}");
    }
}

#[test]
fn an_event_of_common_size_is_within_the_work_of_a_filter() {
    let lines: Vec<Value> = (0..200)
        .map(|n| json!({"sku": format!("sku-{n}"), "count": n}))
        .collect();
    let facts = Facts::of(&sample::event(
        &json!({"type": "x", "data": {"lines": lines, "least": 0, "skus": ["sku-1"]}}),
    ));
    for filter in [
        "event.data.lines.all(line, line.count >= event.data.least && line.count < 1000)",
        "event.data.lines.exists(line, line.sku in event.data.skus)",
    ] {
        assert_eq!(Filter::parse(filter).unwrap().matches(&facts), Ok(()), "{filter}");
    }
}

/// Pieces that filters are made of, so that many of the made ones parse.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "event",
        "project",
        "user",
        ".data",
        ".total",
        ".tags",
        ".items",
        "[0]",
        "['a']",
        "1",
        "-1",
        "2.5",
        "1u",
        "'a'",
        "\"b\"",
        "true",
        "false",
        "null",
        "&&",
        "||",
        "!",
        "==",
        "!=",
        "<",
        ">",
        "+",
        "-",
        "*",
        "/",
        "%",
        " in ",
        "?",
        ":",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".exists(x, x == 1)",
        ".all(x, x.count > 1)",
        ".size()",
        "size(",
        "has(event.data.a)",
        ".contains('a')",
        ".matches('a+')",
        "string(",
        "int(",
        ".map(x, x)",
        "b'a'",
        "r'\\'",
        "\\",
        " ",
        "\n",
        "é",
        "\u{0}",
        "//",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text_is_a_filter_or_a_fault(text in "\\PC{0,60}") {
        if let Ok(filter) = Filter::parse(&text) {
            let _ = filter.matches(&Facts::of(&event()));
        }
    }

    #[test]
    fn any_pieces_are_a_filter_or_a_fault(text in pieces()) {
        if let Ok(filter) = Filter::parse(&text) {
            let _ = filter.matches(&Facts::of(&event()));
        }
    }

    #[test]
    fn a_number_of_the_event_compares_with_the_same_number(number in any::<i32>()) {
        let event = sample::event(&json!({"type": "x", "data": {"n": number}}));
        let filter = Filter::parse(&format!("event.data.n == {number} && event.data.n + 1 > {number}")).unwrap();
        prop_assert_eq!(filter.matches(&Facts::of(&event)), Ok(()));
    }
}
