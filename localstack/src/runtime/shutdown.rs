//! The wish to stop, seen by every task of the runtime.

use std::time::Duration;

use tokio::sync::watch;

/// Says when to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Shutdown(watch::Receiver<bool>);

/// Makes a [`Shutdown`] and what triggers it.
pub(super) fn channel() -> (watch::Sender<bool>, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (sender, Shutdown(receiver))
}

impl Shutdown {
    /// Returns once the runtime is to stop; also when nobody is left who could say so.
    pub(super) async fn wait(&mut self) {
        // An error means that the sender is gone, which is as good as being told.
        let _gone = self.0.wait_for(|stop| *stop).await;
    }

    pub(super) fn is_set(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Sleeps for `duration`, or less when told to stop. Whether to go on.
    pub(super) async fn sleep(&mut self, duration: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(duration) => !self.is_set(),
            () = self.wait() => false,
        }
    }
}
