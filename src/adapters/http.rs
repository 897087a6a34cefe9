//! HTTP servers: publishing and administration.
