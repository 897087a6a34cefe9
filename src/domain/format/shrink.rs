//! [`shrink`]: a value in fewer bytes.

use serde_json::{Map, Value};

use super::digest::{Unit, cut_by};

/// Room for a note of what was left out.
const NOTE: usize = 48;

/// The value in at most so many bytes of JSON, or the shortest note when they are too few.
///
/// Small members stay as they are and leave their share to larger ones. Long texts are cut, arrays and objects lose
/// their last and largest members, and each says so.
pub(super) fn shrink(value: &Value, most: usize) -> Value {
    if size(value, most) <= most {
        return value.clone();
    }
    match value {
        Value::String(text) if most > NOTE => Value::String(cut_by(Unit::Json, text, most.saturating_sub(2))),
        Value::Array(items) if most > NOTE => array(items, most),
        Value::Object(members) if most > NOTE => object(members, most),
        _ => Value::String("[cut]".to_owned()),
    }
}

/// Bytes of JSON, one for a comma included; counting ends soon after `limit`, so that deep values cost no more than
/// their depth times the limit.
fn size(value: &Value, limit: usize) -> usize {
    match value {
        Value::Null | Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(number) => number.to_string().len(),
        Value::String(text) => text_size(text, limit),
        Value::Array(items) => sum(items.iter().map(|item| size(item, limit) + 1), limit),
        Value::Object(members) => {
            let of = |(name, value): (&String, &Value)| text_size(name, limit) + size(value, limit) + 2;
            sum(members.iter().map(of), limit)
        }
    }
}

fn text_size(text: &str, limit: usize) -> usize {
    sum(text.chars().map(|char| Unit::Json.of(char)), limit)
}

/// Two, for what surrounds the parts, and the parts up to the first that goes beyond the limit.
fn sum(parts: impl Iterator<Item = usize>, limit: usize) -> usize {
    let mut total = 2;
    for part in parts {
        total += part;
        if total > limit {
            break;
        }
    }
    total
}

fn array(items: &[Value], most: usize) -> Value {
    let mut room = most.saturating_sub(NOTE);
    let mut kept = Vec::new();
    for item in items {
        let needed = size(item, room) + 1;
        if needed > room {
            // The first that does not fit is told in part, if that says anything.
            if room > 2 * NOTE {
                kept.push(shrink(item, room.saturating_sub(1)));
            }
            break;
        }
        room -= needed;
        kept.push(item.clone());
    }
    if kept.len() < items.len() {
        let more = items.len() - kept.len();
        kept.push(Value::String(format!("[cut: {more} more]")));
    }
    Value::Array(kept)
}

fn object(members: &Map<String, Value>, most: usize) -> Value {
    let mut sizes: Vec<(usize, &String)> = members
        .iter()
        .map(|(name, value)| (size(value, most), name))
        .collect();
    sizes.sort();
    let mut room = most.saturating_sub(NOTE);
    let mut left = sizes.len();
    let mut kept: Map<String, Value> = Map::new();
    for (_, name) in sizes {
        let share = room / left.max(1);
        left -= 1;
        let Some(share) = share.checked_sub(text_size(name, most) + 2) else {
            continue;
        };
        let Some(value) = members.get(name).map(|value| shrink(value, share.max(7))) else {
            continue;
        };
        let used = text_size(name, most) + 2 + size(&value, most);
        if used <= room {
            room -= used;
            kept.insert(name.clone(), value);
        }
    }
    let lost = members.len() - kept.len();
    if lost > 0 {
        kept.insert("[cut]".to_owned(), Value::String(format!("{lost} more")));
    }
    // In the order of the event.
    let order = members.keys().map(String::as_str).chain(["[cut]"]);
    Value::Object(
        order
            .filter_map(|name| Some((name.to_owned(), kept.remove(name)?)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn small_members_stay_and_large_ones_are_told_in_part() {
        let value =
            json!({"id": "1", "data": {"rows": vec!["abc"; 1000], "total": 12}, "text": "x".repeat(9000)});
        let short = shrink(&value, 1000);
        assert!(short.to_string().len() <= 1000);
        assert_eq!(short["id"], "1");
        assert_eq!(short["data"]["total"], 12);
        let rows = short["data"]["rows"].as_array().unwrap();
        assert_eq!(rows[0], "abc");
        assert!(rows.last().unwrap().as_str().unwrap().starts_with("[cut: 9"));
        assert!(short["text"].as_str().unwrap().ends_with("[cut]"));
        assert_eq!(shrink(&value, 100_000), value);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,60}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 200, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
                prop::collection::vec((".{0,30}", inner), 0..20)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn sizes_are_those_of_the_text(value in values()) {
            // Commas are one fewer than members.
            let text = value.to_string().len();
            prop_assert!(size(&value, usize::MAX) >= text);
            prop_assert!(size(&value, 100) >= text.min(101));
        }

        #[test]
        fn nothing_is_over_its_bound(value in values(), most in 7_usize..2000) {
            let text = shrink(&value, most).to_string();
            prop_assert!(text.len() <= most, "{} of {}: {}", text.len(), most, text);
        }
    }
}
