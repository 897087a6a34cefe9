//! How many requests a lane may have in flight: grows with success, shrinks with failure.
