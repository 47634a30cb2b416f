//! Work on the database, which the runtime does not wait for.

use tokio::task::JoinError;

use crate::failure::Failure;

/// Does what the disk may take long for, where nobody else waits for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// What came of work on the database. It panics over some kinds of damage.
pub(super) fn joined<T>(ended: Result<Result<T, Failure>, JoinError>) -> Result<T, Failure> {
    let broken = |_| Failure::disk("the database is damaged").hint("--db FILE begins another");
    ended.map_err(broken).and_then(|result| result)
}
