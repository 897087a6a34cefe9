//! The composition root: builds adapters, binds listeners, supervises tasks, stops in order.
