//! Catalog in SQLite.
