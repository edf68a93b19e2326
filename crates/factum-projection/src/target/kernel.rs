//! Targets that need nothing but a kernel.

use factum_core::Kernel;
use serde::{Serialize, de::DeserializeOwned};

use super::{Documents, InMemory, Target};

/// A target that needs nothing but the kernel of an application: its read models are in the store
/// itself.
pub trait KernelTarget: Target {
    /// The target on this kernel, as it is without further choices.
    fn of_kernel(kernel: &Kernel) -> Self;
}

impl KernelTarget for Documents {
    fn of_kernel(kernel: &Kernel) -> Self {
        Self::new(kernel)
    }
}

impl<M> KernelTarget for InMemory<M>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn of_kernel(kernel: &Kernel) -> Self {
        Self::new(kernel)
    }
}
