//! What the process holds on its heap, counted by its allocator: what DataFusion's operators say that they hold leaves out the
//! batches between them and what they make on the way.

use std::alloc::System;
use std::sync::OnceLock;

use cap::Cap;

/// No allocation is refused, as a program can't go on from there; those who make much ask before.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes held when the program began.
static AT_REST: OnceLock<usize> = OnceLock::new();

/// Has [`in_use`] tell. For programs: in a test many engines share one process.
pub fn watch() {
    AT_REST.get_or_init(|| HEAP.allocated());
}

/// Bytes that the process has taken since [`watch`]; none before that.
pub fn in_use() -> usize {
    AT_REST.get().map_or(0, |at_rest| HEAP.allocated().saturating_sub(*at_rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted_and_what_is_dropped_is_not() {
        let before = HEAP.allocated();
        let block = std::hint::black_box(vec![1_u8; 256 << 20]);
        assert!(HEAP.allocated() >= before + (128 << 20), "other tests hold less than this one");
        drop(block);
        assert!(HEAP.allocated() < before + (128 << 20));
        assert_eq!(in_use(), 0, "nobody watches");
    }
}
