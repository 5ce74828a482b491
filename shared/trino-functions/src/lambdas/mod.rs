//! Functions that take lambdas.

mod arrays;
mod higher;
mod maps;
mod reduce;
mod sort;

use super::{Function, scalar};
pub(crate) use higher::{Applied, Apply, Higher, Way};
pub use higher::{Watch, watched};

pub(crate) fn functions() -> Vec<Function> {
    [arrays::functions(), sort::functions(), reduce::functions(), maps::functions()].into_iter().flatten().collect()
}
