//! [`Counting`]: the system's allocator with a count of what the calling thread holds, for tests and
//! benchmarks that say what something costs in memory. A test that declares it has a binary of its own:
//!
//! ```
//! use harness::heap::Counting;
//!
//! #[global_allocator]
//! static HEAP: Counting = Counting;
//! ```
//!
//! A block counts as what glibc's allocator spends on it: eight bytes more than asked for, rounded up to
//! 16, at least 32.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
pub struct Counting;

/// What the calling thread allocated and has not freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes with what the allocator adds.
    pub bytes: isize,
    /// Blocks.
    pub blocks: isize,
}

impl Held {
    /// What is held at the moment.
    pub fn now() -> Self {
        HELD.get()
    }

    /// What came on top since.
    pub fn since(self) -> Self {
        let now = Self::now();
        Self { bytes: now.bytes - self.bytes, blocks: now.blocks - self.blocks }
    }
}

/// What `work` makes, and the most bytes that came on top while it did.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, isize) {
    let before = Held::now();
    PEAK.set(before.bytes);
    let made = work();
    (made, PEAK.get() - before.bytes)
}

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held { bytes: 0, blocks: 0 }) };
    /// The most bytes held since [`peak_of`] began.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Books a block of `size` bytes as `sign` blocks. A thread that is ending books nothing.
fn book(size: usize, sign: isize) {
    let block = ((size + 8).next_multiple_of(16)).max(32) as isize;
    let _ = HELD.try_with(|held| {
        let Held { bytes, blocks } = held.get();
        let bytes = bytes + sign * block;
        held.set(Held { bytes, blocks: blocks + sign });
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(bytes)));
    });
}

// SAFETY: every call goes to the system's allocator as it came; the count allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        book(layout.size(), 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        book(layout.size(), 1);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        book(layout.size(), -1);
        // SAFETY: `block` came from `System` with this layout, as all blocks here do.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        book(layout.size(), -1);
        book(size, 1);
        // SAFETY: `block` came from `System` with this layout, as all blocks here do.
        unsafe { System.realloc(block, layout, size) }
    }
}
