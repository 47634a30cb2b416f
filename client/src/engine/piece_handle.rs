//! [`PieceHandle`]: what the user of a download of single pieces can ask of it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::one_piece::{PieceDownload, PieceStatus, Refused, Wanted};

/// A cloneable handle of a download of single pieces. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct PieceHandle {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) task: AbortHandle,
}

/// A call of a download came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There was no answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The download is over.
    #[error("the download is over")]
    Ended,
    /// The piece cannot be asked for.
    #[error(transparent)]
    Piece(#[from] Refused),
}

/// Looks at a download and tells somebody what it saw.
pub(super) type Question = Box<dyn FnOnce(&PieceDownload) + Send>;

/// What a handle wants of the task of its download.
pub(super) enum Order {
    Switch(Wanted, oneshot::Sender<Result<(), Refused>>),
    Look(Question),
    Stop(String),
}

impl PieceHandle {
    /// Asks for another piece on the same connection; what is outstanding of the earlier one is cancelled.
    ///
    /// # Errors
    /// [`CallError`]; after `Timeout` it may happen yet.
    pub async fn switch_piece(&self, wanted: Wanted, timeout: Duration) -> Result<(), CallError> {
        let (answer, answered) = oneshot::channel();
        Ok(self.order(Order::Switch(wanted, answer), answered, timeout).await??)
    }

    /// Asks the download something.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<T: Send + 'static>(
        &self,
        request: impl FnOnce(&PieceDownload) -> T + Send + 'static,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let (answer, answered) = oneshot::channel();
        let look = move |download: &PieceDownload| drop(answer.send(request(download)));
        self.order(Order::Look(Box::new(look)), answered, timeout).await
    }

    /// How it stands.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn status(&self, timeout: Duration) -> Result<PieceStatus, CallError> {
        self.call(PieceDownload::status, timeout).await
    }

    /// Closes the connection and waits until it is; the last event has the reason. What is not over
    /// after `timeout` is ended by force, without that event.
    ///
    /// # Errors
    /// [`CallError::Timeout`] when it came to that.
    pub async fn stop(&self, reason: impl Into<String>, timeout: Duration) -> Result<(), CallError> {
        let stopped = async {
            // One that is over hears nothing, and need not.
            let _ = self.orders.send(Order::Stop(reason.into())).await;
            self.orders.closed().await;
        };
        let ended = tokio::time::timeout(timeout, stopped).await;
        ended.map_err(|_| {
            self.task.abort();
            CallError::Timeout
        })
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.orders.is_closed()
    }

    async fn order<T>(
        &self,
        order: Order,
        answered: oneshot::Receiver<T>,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let answer = async {
            self.orders.send(order).await.map_err(|_| CallError::Ended)?;
            answered.await.map_err(|_| CallError::Ended)
        };
        tokio::time::timeout(timeout, answer).await.unwrap_or(Err(CallError::Timeout))
    }
}
