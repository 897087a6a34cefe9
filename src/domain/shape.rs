//! [`Payload`]: the form of a request body.

use crate::api::v1alpha1::event_destination::PayloadFormat;
use super::template::Template;

/// The form of a request body.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A ready format.
    Format(PayloadFormat),
    /// The user's own template.
    Template(Template),
}
