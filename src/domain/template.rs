//! [`Template`]: any JSON value whose strings may hold `{{ $.event.… }}` placeholders.

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {}

/// A fault of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFault {
    /// JSON pointer of the string.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// Every fault.
    pub fn parse(_: &serde_json::Value) -> Result<Self, Vec<TemplateFault>> {
        Ok(Self {})
    }
}
