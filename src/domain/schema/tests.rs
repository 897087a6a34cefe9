use proptest::prelude::*;
use serde_json::json;

use super::*;

fn fault_of(schema: &Value) -> (String, String) {
    let fault = Schema::compile(schema).expect_err(&schema.to_string());
    (fault.pointer, fault.message)
}

#[test]
fn violations_have_pointers_and_never_show_the_value() {
    let schema = Schema::compile(&json!({
        "type": "object", "required": ["id"],
        "properties": {"id": {"type": "integer"}, "lines": {"items": {"$ref": "#/$defs/line"}}},
        "$defs": {"line": {"required": ["sku"], "properties": {"sku": {"pattern": "^[A-Z]{3}$"}}}},
    }))
    .unwrap();
    assert_eq!(
        schema.violations(&json!({"id": 1, "lines": [{"sku": "ABC"}]}), 50),
        []
    );
    let found = schema.violations(&json!({"id": "hunter2", "lines": [{}, {"sku": "secret"}]}), 50);
    let mut pointers: Vec<&str> = found.iter().map(|violation| violation.pointer.as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/id", "/lines/0", "/lines/1/sku"]);
    for violation in &found {
        let shown = &violation.message;
        assert!(!shown.contains("hunter2") && !shown.contains("secret"), "{shown}");
    }
    assert_eq!(
        schema.violations(&json!({"lines": [{}]}), THOROUGH + 1).len(),
        1,
        "the first of a long value"
    );
}

#[test]
fn what_could_fetch_or_never_end_is_refused() {
    for (schema, pointer, text) in [
        (json!(true), "", "a schema is a JSON object"),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#"}),
            "/$schema",
            "leave it out",
        ),
        (
            json!({"$ref": "https://example.com/a.json"}),
            "/$ref",
            "leads out of the schema, and nothing is ever fetched",
        ),
        (
            json!({"items": {"$ref": "file:///etc/passwd"}}),
            "/items/$ref",
            "leads out of the schema",
        ),
        (
            json!({"$ref": "other.json#/$defs/a"}),
            "/$ref",
            "leads out of the schema",
        ),
        (
            json!({"$ref": "#/$defs/a"}),
            "/$ref",
            "there is nothing at #/$defs/a",
        ),
        (json!({"$ref": "#"}), "/$ref", "# leads back to itself"),
        (
            json!({"$defs": {"a": {"$ref": "#/$defs/a"}}}),
            "/$defs/a/$ref",
            "leads back to itself",
        ),
        (
            json!({"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"items": {"$ref": "#/$defs/a"}}}}),
            "/$defs/a/items/$ref",
            "leads back to itself",
        ),
        (
            json!({"properties": {"a": {"$dynamicRef": "#x"}}}),
            "/properties/a/$dynamicRef",
            "is not supported",
        ),
        (
            json!({"$defs": {"a": {"$anchor": "x"}}}),
            "/$defs/a/$anchor",
            "is not supported",
        ),
        (
            json!({"$defs": {"a": {"$id": "https://a.example"}}}),
            "/$defs/a/$id",
            "leave it out",
        ),
        (json!({"type": "objekt"}), "/type", ""),
        (json!({"properties": 5}), "/properties", ""),
        (
            json!({"properties": {"a": {"pattern": "("}}}),
            "/properties/a/pattern",
            "",
        ),
        (json!({"pattern": "^(?=a)"}), "/pattern", "no look-around"),
        (json!({"pattern": "(a)\\1"}), "/pattern", "no look-around"),
        (json!({"pattern": "(a{1000}){1000}"}), "/pattern", ""),
    ] {
        let (found, message) = fault_of(&schema);
        assert!(message.contains(text), "{schema}: {found} {message}");
        assert_eq!(found, pointer, "{schema}: {message}");
    }
}

#[test]
fn bounds_hold() {
    let doubling = |levels: usize| {
        let mut defs = Map::new();
        for level in 0..levels {
            let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
            defs.insert(format!("d{level}"), json!({"allOf": [next, next]}));
        }
        defs.insert(format!("d{levels}"), json!({"type": "object"}));
        json!({"$ref": "#/$defs/d0", "$defs": defs})
    };
    assert!(Schema::compile(&doubling(4)).is_ok());
    assert!(fault_of(&doubling(20)).1.contains("subschemas"));

    let chain = |length: usize| {
        let mut defs = Map::new();
        for level in 0..length {
            defs.insert(
                format!("d{level}"),
                json!({"$ref": format!("#/$defs/d{}", level + 1)}),
            );
        }
        defs.insert(format!("d{length}"), json!({}));
        json!({"$defs": defs})
    };
    assert!(Schema::compile(&chain(10)).is_ok());
    assert!(fault_of(&chain(600)).1.contains("nested"));

    let mut deep = json!({});
    for _ in 0..40 {
        deep = json!({"not": deep});
    }
    assert!(fault_of(&deep).1.contains("nests over 32"));
    assert!(
        fault_of(&json!({"description": "a".repeat(MAX_SCHEMA)}))
            .1
            .contains("over 32768 bytes")
    );
    let patterns: Vec<Value> = (0..17).map(|n| json!({"pattern": format!("a{n}")})).collect();
    assert!(fault_of(&json!({"anyOf": patterns})).1.contains("17 patterns"));
}

#[test]
fn a_list_is_compared_with_itself_only_when_it_is_short() {
    let schema = Schema::compile(&json!({"properties": {"l": {"uniqueItems": true}}})).unwrap();
    let list = |count: usize| json!({"l": (0..count).collect::<Vec<_>>()});
    assert_eq!(schema.violations(&list(MAX_UNIQUE), 5000), []);
    let found = schema.violations(&list(MAX_UNIQUE + 1), 5000);
    assert!(found[0].message.contains("uniqueItems"), "{found:?}");
    assert_eq!(schema.violations(&json!({"l": [1, 1]}), 20)[0].pointer, "/l");
}

#[test]
fn what_is_left_over_is_asked_for_on_few_levels() {
    for keyword in ["unevaluatedProperties", "unevaluatedItems"] {
        let nested = |levels: usize| {
            (0..levels).fold(
                json!({}),
                |inner, _| json!({"allOf": [inner], keyword: {"type": "integer"}}),
            )
        };
        assert!(Schema::compile(&nested(MAX_UNEVALUATED)).is_ok());
        let (pointer, message) = fault_of(&nested(MAX_UNEVALUATED + 1));
        assert!(message.contains("look into other schemas"), "{message}");
        assert_eq!(pointer, format!("{}/allOf", "/allOf/0".repeat(MAX_UNEVALUATED)));
    }
    // Objects within objects, each of which allows nothing else, look into nothing.
    let strict = (0..10).fold(
        json!({"type": "string"}),
        |inner, _| json!({"properties": {"a": inner}, "unevaluatedProperties": false}),
    );
    let schema = Schema::compile(&strict).unwrap();
    let value = |leaf: Value| (0..10).fold(leaf, |inner, _| json!({"a": inner}));
    assert_eq!(schema.violations(&value(json!("x")), 100), []);
    assert_eq!(schema.violations(&value(json!(1)), 100).len(), 1);
}

#[test]
fn a_long_value_that_fits_no_choice_is_not_told_in_every_way_it_does_not() {
    let nested = |levels: usize| {
        (0..levels).fold(
            json!({"type": "string"}),
            |inner, _| json!({"items": {"anyOf": [inner, inner]}}),
        )
    };
    let schema = Schema::compile(&nested(7)).unwrap();
    let value = |count: usize| (0..6).fold(json!(vec![1; count]), |inner, _| json!([inner]));
    let long = value(30_000);
    assert_eq!(
        schema.violations(&long, long.to_string().len()),
        [Violation {
            pointer: String::new(),
            message: "the value breaks its schema; it is too long, and has too many choices, to say where"
                .to_owned(),
        }]
    );
    let short = value(3);
    assert_eq!(
        schema.violations(&short, short.to_string().len())[0].pointer,
        "/0"
    );
    // Without choices there is one way, and one place.
    let plain = Schema::compile(&json!({"items": {"allOf": vec![json!({"type": "string"}); 900]}})).unwrap();
    let found = plain.violations(&json!(vec![1; 30_000]), 60_001);
    assert_eq!((found.len(), found[0].pointer.as_str()), (1, "/0"));
}

#[test]
fn a_long_value_is_not_checked_by_a_large_schema() {
    let large = Schema::compile(&json!({"items": {"allOf": vec![json!({"type": "integer"}); 900]}})).unwrap();
    let small = Schema::compile(&json!({"items": {"type": "integer"}})).unwrap();
    let value = json!(vec![1; 400_000]);
    let length = value.to_string().len();
    assert_eq!(small.violations(&value, length), []);
    let found = large.violations(&value, length);
    assert_eq!(
        found[0].message,
        "a value of 800001 bytes is too long to be checked by so large a schema"
    );
    assert_eq!(large.violations(&json!(vec![1; 40_000]), 80_001), []);
    for (weighty, fits) in [
        (json!({"items": {"enum": (0..4000).collect::<Vec<_>>()}}), false),
        (json!({"items": {"multipleOf": 0.01}}), true),
        (
            json!({"items": {"allOf": vec![json!({"multipleOf": 0.01}); 10]}}),
            false,
        ),
        (
            json!({"items": {"allOf": vec![json!({"multipleOf": 5}); 10]}}),
            true,
        ),
    ] {
        let schema = Schema::compile(&weighty).unwrap();
        let found = schema.violations(&json!([0]), length);
        assert_eq!(found.is_empty(), fits, "{weighty}");
        assert!(schema.work() > 60 || fits, "{weighty} is work");
    }
}

/// Schemas of which many compile, some refer to each other, and some are nonsense.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({})),
        Just(json!(true)),
        Just(json!(false)),
        Just(json!({"type": "integer"})),
        Just(json!({"type": ["string", "null"], "minLength": 2})),
        Just(json!({"pattern": "^[a-z]+(-[0-9]{2,})?$"})),
        Just(json!({"enum": [1, "a", null]})),
        Just(json!({"$ref": "#/$defs/a"})),
        Just(json!({"$ref": "#/$defs/b/items"})),
        Just(json!({"$ref": "#"})),
        Just(json!({"type": 5})),
        "\\PC{0,12}".prop_map(|pattern| json!({"pattern": pattern})),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let word = prop::sample::select(vec![
            "not",
            "items",
            "contains",
            "if",
            "then",
            "additionalProperties",
            "unevaluatedItems",
            "unevaluatedProperties",
            "propertyNames",
        ]);
        let many = prop::sample::select(vec!["allOf", "anyOf", "oneOf", "prefixItems"]);
        prop_oneof![
            (word, inner.clone()).prop_map(|(word, schema)| json!({word: schema})),
            (many, prop::collection::vec(inner.clone(), 1..4)).prop_map(|(word, list)| json!({word: list})),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| json!({"properties": {"a": a, "b": b}, "required": ["a"]})),
            (inner.clone(), inner)
                .prop_map(|(a, b)| json!({"$defs": {"a": a, "b": {"items": b}}, "$ref": "#/$defs/b"})),
        ]
    })
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|number| json!(number)),
        "[a-z-]{0,6}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[a-c]", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_schema_compiles_or_is_a_fault_and_judges_any_value(schema in schemas(), value in values()) {
        if let Ok(schema) = Schema::compile(&schema) {
            let told = schema.violations(&value, 100);
            prop_assert!(told.len() <= TOLD);
            prop_assert!(told.iter().all(|violation| value.pointer(&violation.pointer).is_some()));
        }
    }
}

#[test]
fn a_pattern_that_would_backtrack_for_ever_is_linear() {
    let schema = Schema::compile(&json!({"pattern": "^(a+)+$"})).unwrap();
    let text = format!("{}b", "a".repeat(100_000));
    assert_eq!(schema.violations(&json!(text), 100_002).len(), 1);
}
