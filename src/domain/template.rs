//! [`Template`]: any JSON value whose strings may hold `{{ $.event.… }}` placeholders.

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {}
