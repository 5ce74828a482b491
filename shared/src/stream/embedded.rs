//! Streams in SQLite.
