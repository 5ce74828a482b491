//! What crates above this one keep beside tables.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

type Value = Arc<dyn Any + Send + Sync>;

/// Values by their types: a pool of memory, a cache of what was read. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Extensions(Arc<Mutex<HashMap<TypeId, Value>>>);

impl Extensions {
    /// The same and `value`, in place of another of its type. What was cloned from these before does not see it.
    #[must_use]
    pub(crate) fn with<T: Any + Send + Sync>(&self, value: T) -> Self {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        values.insert(TypeId::of::<T>(), Arc::new(value));
        Self(Arc::new(Mutex::new(values)))
    }

    /// The value of a type, its default from now on if there was none.
    pub fn get_or_default<T: Any + Send + Sync + Default>(&self) -> Arc<T> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = Arc::clone(values.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default())));
        // It is there under its own type.
        value.downcast().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_what_is_made_and_not_what_is_given() {
        let first = Extensions::default();
        let clone = first.clone();
        assert!(Arc::ptr_eq(&first.get_or_default::<Mutex<u8>>(), &clone.get_or_default::<Mutex<u8>>()));
        let other = first.with(7_u8);
        assert_eq!((*other.get_or_default::<u8>(), *first.get_or_default::<u8>()), (7, 0));
        assert!(Arc::ptr_eq(&first.get_or_default::<Mutex<u8>>(), &other.get_or_default::<Mutex<u8>>()));
    }
}
