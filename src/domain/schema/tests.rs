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
fn a_pattern_that_would_backtrack_for_ever_is_linear() {
    let schema = Schema::compile(&json!({"pattern": "^(a+)+$"})).unwrap();
    let text = format!("{}b", "a".repeat(100_000));
    assert_eq!(schema.violations(&json!(text), 100_002).len(), 1);
}
