//! An allocator that counts, for the claim that a file cannot ask for more memory than it has bytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a piece of work asked of the allocator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// The largest single request, in bytes.
    pub(crate) largest: usize,
    /// The most bytes held at once, above what was held before.
    pub(crate) peak: usize,
}

#[derive(Clone, Copy, Default)]
struct State {
    live: isize,
    peak: isize,
    largest: usize,
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State { live: 0, peak: 0, largest: 0 }) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(asked: usize, freed: usize) {
    // A thread that is ending has no state any more, and nothing to count.
    let _ = STATE.try_with(|cell| {
        let mut s = cell.get();
        s.live += asked as isize - freed as isize;
        s.peak = s.peak.max(s.live);
        s.largest = s.largest.max(asked);
        cell.set(s);
    });
}

// SAFETY: every call is handed to the system's allocator unchanged; counting neither allocates nor touches the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Old and new block may be there at once.
        count(new_size, 0);
        count(0, layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Runs `work` and tells what it asked for.
pub(crate) fn measure<T>(work: impl FnOnce() -> T) -> (T, Usage) {
    STATE.with(|cell| cell.set(State::default()));
    let result = work();
    let s = STATE.with(Cell::get);
    (result, Usage { largest: s.largest, peak: s.peak.max(0) as usize })
}
