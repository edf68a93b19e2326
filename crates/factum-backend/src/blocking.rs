//! Work that may block, on a thread where it holds up no task.

use factum_kernel::StoreError;
use tokio::runtime::Handle;

/// Starts work that may block, at once, and waits for its result. On a runtime, it runs on a thread
/// for blocking work; without one, on the caller's thread. So a store that answers from memory and
/// a store that reads the disk work in the same places.
///
/// # Errors
/// `Internal` if the work panicked, or the runtime ends.
///
/// # Cancel safety
/// On a runtime, the work goes on without the caller.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), factum_kernel::StoreError> {
/// assert_eq!(factum_backend::blocking(|| 6 * 7).await?, 42);
/// # Ok(()) }
/// ```
pub fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, StoreError>> + Send {
    let begun = match Handle::try_current() {
        Ok(runtime) => Err(runtime.spawn_blocking(work)),
        Err(_) => Ok(work()),
    };
    async move {
        match begun {
            Ok(done) => Ok(done),
            Err(task) => task.await.map_err(|error| {
                StoreError::internal("work on a blocking thread was cut off").with_source(error)
            }),
        }
    }
}
