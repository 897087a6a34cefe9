//! [`Directory`]: projects and destinations as configured, for readers that must not wait.
//!
//! One writer per object kind (the controllers) updates it in place; publishing and the lanes read it. Which lanes
//! an event type goes to is remembered per project and type until anything changes.
