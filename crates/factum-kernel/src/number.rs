//! The one definition of the numeric newtypes, so that all of them behave alike.

/// Defines a `u64` newtype with `ZERO`, `new`, `value`, `next` and `Display`.
macro_rules! number {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Zero, the number before the first.
            pub const ZERO: Self = Self(0);
            /// The largest number that a store gives.
            pub const MAX: Self = Self(i64::MAX as u64);

            /// The newtype of this number. Every `u64` is accepted.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The plain number, for storage and arithmetic.
            pub const fn value(self) -> u64 {
                self.0
            }

            /// The next number.
            ///
            /// # Panics
            /// At `u64::MAX`. Stores never reach it, because they refuse to count past
            /// [`Self::MAX`].
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// This number plus `n`.
            ///
            /// # Panics
            /// If the sum is larger than `u64::MAX`.
            #[must_use]
            pub const fn plus(self, n: u64) -> Self {
                Self(self.0.checked_add(n).expect("no log holds 2^64 events"))
            }

            /// The previous number; [`Self::ZERO`] stays [`Self::ZERO`].
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

pub(crate) use number;
