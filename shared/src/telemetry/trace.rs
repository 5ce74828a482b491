//! The trace that the work at hand belongs to, so that what is put off can be told by it later on.

tokio::task_local! {
    static ID: Option<String>;
}

/// Does `work` as part of the trace `id`, 32 hexadecimal digits. A task that the work spawns does not know of it.
pub async fn within<F: Future>(id: Option<String>, work: F) -> F::Output {
    ID.scope(id, work).await
}

/// The trace of this task; none where nobody named one.
pub fn current() -> Option<String> {
    ID.try_with(Clone::clone).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_knows_its_trace() {
        assert_eq!(current(), None);
        let id = Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
        assert_eq!(within(id.clone(), async { current() }).await, id);
        assert_eq!(within(None, async { current() }).await, None);
    }
}
