//! One JSON subscriber for every program.
