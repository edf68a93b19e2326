//! Work that may block, where it holds up nobody.

use factum_kernel::StoreError;
use tokio::runtime::Handle;

/// Begins work that may block, at once, and waits for its result: on one of the runtime's threads
/// for that, or on the caller's where there is no runtime, whose tasks it could hold up. So what
/// is answered from memory and what takes the disk work in the same places.
///
/// # Errors
/// `Internal` where the work panicked, or the runtime ends.
///
/// # Cancel safety
/// On a runtime the work goes on without the caller.
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
