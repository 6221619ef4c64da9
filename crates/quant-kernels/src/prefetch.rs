//! Asking for memory before it is read.

/// So many bytes ahead of what a product of few tokens reads it asks for the weights: rows follow each other, and the processor's own guesses
/// begin anew with each page.
pub(crate) const AHEAD: usize = 2048;

/// Asks for the cache lines of `len` bytes at [`AHEAD`] bytes behind `p`. Any address will do: nothing is read.
#[inline(always)]
pub(crate) fn prefetch(p: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..len).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: part of every x86-64; an address that is not mapped is ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(AHEAD + line).cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    for line in (0..len).step_by(64) {
        // SAFETY: part of every aarch64; an address that is not mapped is ignored.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) p.wrapping_add(AHEAD + line), options(readonly, nostack, preserves_flags));
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (p, len);
}
