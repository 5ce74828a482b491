//! Arrays.

mod elements;
mod joined;
mod parts;
mod sequence;
mod sets;
mod whole;

use super::call::whole as compute;
use super::{Function, scalar};
pub(super) use elements::subscript;
pub(super) use parts::{Aligned, aligned};

pub(super) const SECTION: &str = "Array";

pub(super) fn functions() -> Vec<Function> {
    [
        elements::functions(),
        sets::functions(),
        parts::functions(),
        whole::functions(),
        sequence::functions(),
        joined::functions(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
