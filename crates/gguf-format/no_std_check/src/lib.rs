//! A program without `std` that reads, checks, writes and computes with gguf-format. That it builds is the test: this library has a panic
//! handler and an allocator of its own, and if anything below it linked `std`, the compiler would refuse the second of each.
#![no_std]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};
use gguf_format::imatrix::Imatrix;
use gguf_format::{ByteOrder, Gguf, Limits, Result, SizedTensor, WritePlan, blocks};

/// Reads a file, dequantizes its tensors, and writes it in the other byte order. Returns the length of that file.
fn through_everything(bytes: &[u8]) -> Result<usize> {
    if let Ok(imatrix) = Imatrix::parse(bytes) {
        return imatrix.to_legacy_bytes().map(|bytes| bytes.len());
    }
    let gguf = Gguf::parse(bytes, &Limits::default())?;
    gguf.strict_check()?;
    let mut turned = Vec::new();
    for tensor in gguf.tensors() {
        let mut values = vec![0f32; tensor.element_count() as usize];
        let mut data = gguf.data_in(ByteOrder::Little, tensor)?.into_owned();
        blocks::dequantize(tensor.ggml_type(), &data, &mut values)?;
        blocks::quantize(tensor.ggml_type(), &values, tensor.row_len() as usize, None, &mut data)?;
        turned.push(gguf.data_in(ByteOrder::Big, tensor)?);
    }
    let sized: Vec<SizedTensor> = gguf.tensors().iter().map(SizedTensor::from).collect();
    let slices: Vec<&[u8]> = turned.iter().map(|d| &**d).collect();
    Ok(WritePlan::in_order(ByteOrder::Big, gguf.metadata(), &sized)?.to_bytes(&slices)?.len())
}

/// For a caller in any language: the length of the file, or 0.
///
/// # Safety
/// `bytes` points to `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gguf_through_everything(bytes: *const u8, len: usize) -> usize {
    // SAFETY: the caller's contract.
    through_everything(unsafe { core::slice::from_raw_parts(bytes, len) }).unwrap_or(0)
}

const HEAP: usize = 1 << 20;

/// Gives memory once and never takes it back.
struct Bump {
    heap: UnsafeCell<[u8; HEAP]>,
    used: AtomicUsize,
}

// SAFETY: `used` hands every byte of `heap` to one caller at the most.
unsafe impl Sync for Bump {}

// SAFETY: ranges do not overlap, lie in `heap`, and start where the layout asks for.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.heap.get() as usize;
        let range = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let start = (base + used).next_multiple_of(layout.align()) - base;
            start.checked_add(layout.size()).filter(|&end| end <= HEAP)
        });
        match range {
            Ok(used) => (base as *mut u8).wrapping_add((base + used).next_multiple_of(layout.align()) - base),
            Err(_) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static BUMP: Bump = Bump { heap: UnsafeCell::new([0; HEAP]), used: AtomicUsize::new(0) };

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
