//! File and record formats: find, infer, read, write.
