//! The status of each kind as a function of spec, faults, health, previous status and now.
