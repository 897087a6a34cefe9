//! The built-in event types: which format belongs to each, and the message of an event that has none.
