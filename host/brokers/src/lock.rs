use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose value is whole at every moment, also where a thread panicked with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
