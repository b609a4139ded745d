//! An allocator that counts what is live, while it is asked to.
#![expect(
    unsafe_code,
    reason = "an allocator is unsafe by its contract; this one hands every call to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Other tests of this process pay one load for each call.
static COUNTS: AtomicBool = AtomicBool::new(false);

/// Below zero where more was freed than allocated since the counting began.
static LIVE: AtomicIsize = AtomicIsize::new(0);

static PEAK: AtomicIsize = AtomicIsize::new(0);

/// The system's allocator, counted.
struct Counting;

impl Counting {
    fn add(bytes: usize) {
        if COUNTS.load(Ordering::Relaxed) {
            let bytes = bytes.cast_signed();
            PEAK.fetch_max(LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes, Ordering::Relaxed);
        }
    }

    fn subtract(bytes: usize) {
        if COUNTS.load(Ordering::Relaxed) {
            LIVE.fetch_sub(bytes.cast_signed(), Ordering::Relaxed);
        }
    }
}

// SAFETY: every method hands its arguments to the system's allocator as they are, and returns what that returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Self::subtract(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // What is large is moved by its pages, and never there twice.
        Self::add(size.saturating_sub(layout.size()));
        Self::subtract(layout.size().saturating_sub(size));
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// What is live at this moment counts as zero.
pub(super) fn begin() {
    LIVE.store(0, Ordering::Relaxed);
    PEAK.store(0, Ordering::Relaxed);
    COUNTS.store(true, Ordering::Relaxed);
}

/// The most that was live at one time since [`begin`], and what is live now.
pub(super) fn end() -> (usize, isize) {
    COUNTS.store(false, Ordering::Relaxed);
    (PEAK.load(Ordering::Relaxed).max(0).cast_unsigned(), LIVE.load(Ordering::Relaxed))
}
