//! What names may be, ours and those of Kubernetes: as functions, and as rules of the schemas.

use kube::core::Rule;

/// Most characters of an object's name.
pub const MAX_NAME: usize = 253;
/// Most characters of a namespace's name.
pub const MAX_NAMESPACE: usize = 63;

/// Added to a destination's name, it names the Secret of its generated signing key.
pub const SIGNING_SUFFIX: &str = "-signing";
/// Added to a destination's name, it names the Secret of earlier signing keys, for as long as they count.
pub const ROTATED_SUFFIX: &str = "-rotated";
/// Added to a project's name, it names the Secret of its publish token.
pub const TOKEN_SUFFIX: &str = "-publish-token";

/// Most characters of a destination's name: there must be room for [`SIGNING_SUFFIX`] and [`ROTATED_SUFFIX`].
pub const MAX_DESTINATION_NAME: usize = MAX_NAME - SIGNING_SUFFIX.len();
/// Most characters of a project's name: there must be room for [`TOKEN_SUFFIX`].
pub const MAX_PROJECT_NAME: usize = MAX_NAME - TOKEN_SUFFIX.len();

/// The rule of a schema that refuses what cannot be the name of an object.
pub(super) const NAME_RULE: &str = "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$') && !self.contains('..')";
/// What [`NAME_RULE`] says.
pub(super) const NAME_MESSAGE: &str = "use lower-case letters, digits, \"-\" and \".\"";

/// The rule of an object's schema that bounds its name, because something is added to it.
pub(super) fn length_rule(most: usize, suffix: &str) -> Rule {
    let message =
        format!("the name may have at most {most} characters, because {suffix:?} is added for its Secret");
    Rule::new(format!("self.metadata.name.size() <= {most}")).message(message.as_str())
}

/// Whether a text is made as the name of an object, however long: parts joined by dots, each of lower-case letters,
/// digits and "-", which begin and end with a letter or digit.
#[must_use]
pub fn is_well_formed(text: &str) -> bool {
    text.split('.').all(is_part)
}

/// Whether an object may have that name; of nothing else can one be asked for.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && is_well_formed(text)
}

/// Whether a namespace may have that name.
#[must_use]
pub fn is_namespace(text: &str) -> bool {
    text.len() <= MAX_NAMESPACE && is_part(text)
}

fn is_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.bytes().all(inner) && !text.is_empty() && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    //! Which texts are names.

    use super::*;

    #[test]
    fn a_destination_has_room_for_either_suffix() {
        assert!(ROTATED_SUFFIX.len() <= SIGNING_SUFFIX.len());
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_a_path() {
        for name in ["a", "a-b.c", "0", &"a".repeat(253)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "..",
            "../x",
            "a/b",
            "a%2fb",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a-",
            "a.-b",
            "A",
            "a_b",
            "a?b",
            "a#b",
            "ä",
            &"a".repeat(254),
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_namespace_is_a_single_part() {
        assert!(is_namespace("team-a") && is_namespace(&"a".repeat(63)));
        assert!(!is_namespace("team.a") && !is_namespace("") && !is_namespace(&"a".repeat(64)));
    }
}
