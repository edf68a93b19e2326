//! Tables of errors: each variant, and its kind.

use std::{error::Error, iter::successors};

use factum_kernel::Cause;

/// A user's error that wraps one of ours, and shows it as its own.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Hidden<E: Error + 'static>(pub E);

/// Fails unless each error of a table has its kind, and says nothing that its source says.
///
/// The patterns name all variants: one that the table lacks does not compile. `kind()` is called on
/// each error, and [`assert_said_once`].
///
/// ```
/// use factum_kernel::{ErrorKind, StoreError};
///
/// #[derive(Debug, thiserror::Error)]
/// enum ExportError {
///     #[error("there is nothing to export")]
///     Nothing,
///     #[error("the log can't be read")]
///     Read(#[source] StoreError),
/// }
///
/// impl ExportError {
///     fn kind(&self) -> ErrorKind {
///         match self {
///             Self::Nothing => ErrorKind::Invalid,
///             Self::Read(error) => error.kind().into(),
///         }
///     }
/// }
///
/// factum_testing::assert_kinds!(ExportError {
///     ExportError::Nothing = ExportError::Nothing => Invalid,
///     ExportError::Read(_) = ExportError::Read(StoreError::unavailable("away")) => Unavailable,
/// });
/// ```
#[macro_export]
macro_rules! assert_kinds {
    ($type:ty { $($pattern:pat = $error:expr => $kind:ident,)+ }) => {
        #[allow(unreachable_patterns, reason = "a variant may have several kinds")]
        let _ = |error: &$type| match error { $($pattern => (),)+ };
        $({
            let error: $type = $error;
            assert_eq!(error.kind(), ::factum_kernel::ErrorKind::$kind, "{error}");
            $crate::assert_said_once(&error);
        })+
    };
}

/// Fails if the text of an error, or of one of its sources, repeats that of the next source.
///
/// # Panics
/// With both texts.
pub fn assert_said_once(error: &(dyn Error + 'static)) {
    let chain = successors(Some(error), |error| (**error).source());
    let said: Vec<_> =
        chain.filter(|error| !error.is::<Cause>()).map(ToString::to_string).collect();
    for pair in said.windows(2) {
        assert!(!pair[0].contains(&pair[1]), "{:?} repeats its source {:?}", pair[0], pair[1]);
    }
}
