//! [`Payload`]: the form of a request body.

use super::template::Template;
use crate::api::v1alpha1::event_destination::PayloadFormat;

/// The form of a request body.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A ready format.
    Format(PayloadFormat),
    /// The user's own template.
    Template(Template),
}
