//! A pool of buffers that events are read into. New memory from the system costs more than reading
//! the events.

use std::sync::{Mutex, PoisonError};

/// The most buffers that the pool keeps.
const KEPT_MAX: usize = 8;
/// A buffer with more capacity than this, in bytes, is freed instead of kept.
const BYTES_MAX: usize = 512 << 10;

/// Buffers that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

/// A buffer, with old content still in it. Its drop puts it back into the pool.
#[derive(Debug)]
pub(crate) struct Buffer<'b> {
    buffers: &'b Buffers,
    pub(crate) bytes: Vec<u8>,
}

impl Buffers {
    pub(crate) fn take(&self) -> Buffer<'_> {
        Buffer { buffers: self, bytes: self.kept().pop().unwrap_or_default() }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let mut kept = self.buffers.kept();
        if kept.len() < KEPT_MAX && self.bytes.capacity() <= BYTES_MAX {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_unless_it_is_large() {
        let buffers = Buffers::default();
        buffers.take().bytes.resize(1_000, 7);
        assert_eq!(buffers.take().bytes.len(), 1_000);
        buffers.take().bytes.resize(BYTES_MAX + 1, 7);
        assert_eq!(buffers.take().bytes.len(), 0);
    }
}
