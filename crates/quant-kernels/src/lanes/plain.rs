//! Plain Rust: arrays, for every target. The twin that the other instruction sets are compared with. Not forced inline: it would be most of the crate's code.

use super::Lanes;
use half::f16;
use std::array::from_fn;

/// No instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

// The only unsafe operations are reads and writes of whole arrays, which `Lanes` asks the caller to own.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Plain {
    const TILE: (usize, usize) = (2, 1);
    const MANY_REGISTERS: bool = false;
    const WIDTHS: (usize, usize) = (2, 2);
    const OFF: i32 = 0;
    type B = [u8; 64];
    type I = [i32; 16];
    type F = [f32; 16];

    #[inline]
    unsafe fn bytes(p: *const u8) -> [u8; 64] {
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline]
    unsafe fn word(p: *const u8) -> [u8; 64] {
        let word = unsafe { p.cast::<[u8; 4]>().read_unaligned() };
        from_fn(|i| word[i % 4])
    }

    #[inline]
    unsafe fn twice(p: *const u8) -> [u8; 64] {
        let x = unsafe { p.cast::<[u8; 32]>().read_unaligned() };
        from_fn(|i| x[i % 32])
    }
    #[inline]
    unsafe fn two(a: *const u8, b: *const u8) -> [u8; 64] {
        let x = unsafe { [a, b].map(|p| p.cast::<[u8; 32]>().read_unaligned()) };
        from_fn(|i| x[i / 32][i % 32])
    }
    #[inline]
    unsafe fn quarters(a: *const u8, b: *const u8) -> [u8; 64] {
        let x = unsafe { [a, b].map(|p| p.cast::<[u8; 16]>().read_unaligned()) };
        from_fn(|i| x[i / 32][i % 16])
    }
    #[inline]
    unsafe fn store_bytes(p: *mut u8, x: [u8; 64]) {
        unsafe { p.cast::<[u8; 64]>().write_unaligned(x) }
    }
    #[inline]
    unsafe fn splat_b(x: u8) -> [u8; 64] {
        [x; 64]
    }
    #[inline]
    unsafe fn and_b(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        from_fn(|i| a[i] & b[i])
    }
    #[inline]
    unsafe fn or_b(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        from_fn(|i| a[i] | b[i])
    }
    #[inline]
    unsafe fn xor_b(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        from_fn(|i| a[i] ^ b[i])
    }
    #[inline]
    unsafe fn shr_b(x: [u8; 64], by: [u32; 4]) -> [u8; 64] {
        let word = |i: usize| u32::from_le_bytes(from_fn(|b| x[i / 4 * 4 + b]));
        from_fn(|i| (word(i) >> by[i / 16]).to_le_bytes()[i % 4])
    }
    #[inline]
    unsafe fn shl_b(x: [u8; 64], by: u32) -> [u8; 64] {
        let word = |i: usize| u32::from_le_bytes(from_fn(|b| x[i / 4 * 4 + b]));
        from_fn(|i| (word(i) << by).to_le_bytes()[i % 4])
    }
    #[inline]
    unsafe fn where_bits(bits: u64, value: u8) -> [u8; 64] {
        from_fn(|i| if bits >> i & 1 == 1 { value } else { 0 })
    }
    #[inline]
    unsafe fn lookup(table: &[u8; 16], codes: [u8; 64]) -> [u8; 64] {
        codes.map(|c| table[usize::from(c % 16)])
    }

    #[inline]
    unsafe fn splat_i(x: i32) -> [i32; 16] {
        [x; 16]
    }
    #[inline]
    unsafe fn load_i(p: *const i32) -> [i32; 16] {
        unsafe { p.cast::<[i32; 16]>().read_unaligned() }
    }
    #[inline]
    unsafe fn store_i(p: *mut i32, x: [i32; 16]) {
        unsafe { p.cast::<[i32; 16]>().write_unaligned(x) }
    }
    #[inline]
    unsafe fn add_i(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline]
    unsafe fn sub_i(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline]
    unsafe fn mul_i(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        from_fn(|i| a[i].wrapping_mul(b[i]))
    }
    #[inline]
    unsafe fn shl_i(x: [i32; 16], by: u32) -> [i32; 16] {
        x.map(|x| x << by)
    }
    #[inline]
    unsafe fn shr_i(x: [i32; 16], by: u32) -> [i32; 16] {
        x.map(|x| x >> by)
    }
    #[inline]
    unsafe fn centered(u: [u8; 64]) -> [u8; 64] {
        u
    }
    #[inline]
    unsafe fn dot_7(acc: [i32; 16], u: [u8; 64], s: [u8; 64]) -> [i32; 16] {
        unsafe { Self::dot(acc, u, s) }
    }
    #[inline]
    unsafe fn sum_i(x: [i32; 16]) -> i32 {
        x.iter().fold(0, |a, &b| a.wrapping_add(b))
    }
    #[inline]
    unsafe fn dot(acc: [i32; 16], u: [u8; 64], s: [u8; 64]) -> [i32; 16] {
        let product = |i: usize| i32::from(u[i]) * i32::from(s[i] as i8);
        from_fn(|i| acc[i].wrapping_add((4 * i..4 * i + 4).map(product).sum()))
    }
    #[inline]
    unsafe fn dot_16(acc: [i32; 16], u: [u8; 64], x: *const u8) -> [i32; 16] {
        let x = unsafe { x.cast::<[i16; 64]>().read_unaligned() };
        let product = |i: usize| i32::from(u[i]) * i32::from(x[i % 2 * 32 + i / 2]);
        from_fn(|i| acc[i].wrapping_add((4 * i..4 * i + 4).map(product).sum()))
    }

    #[inline]
    unsafe fn dot_words(acc: [[i32; 16]; 2], u: [u8; 64], x: *const u8) -> [[i32; 16]; 2] {
        let [even, odd] = [0, 64].map(|at| unsafe { x.add(at).cast::<[i16; 2]>().read_unaligned() }.map(i32::from));
        let sum = |acc: [i32; 16], first: usize, x: [i32; 2]| -> [i32; 16] {
            let product = |i: usize, j: usize| i32::from(u[4 * i + first + 2 * j]) * x[j];
            from_fn(|i| acc[i].wrapping_add(product(i, 0) + product(i, 1)))
        };
        [sum(acc[0], 0, even), sum(acc[1], 1, odd)]
    }
    #[inline]
    unsafe fn join(acc: [[i32; 16]; 2]) -> [i32; 16] {
        unsafe { Self::add_i(acc[0], acc[1]) }
    }

    #[inline]
    unsafe fn put_bytes(p: *mut u8, codes: [i32; 16]) {
        unsafe { p.cast::<[u8; 16]>().write_unaligned(codes.map(|c| c as u8)) }
    }
    #[inline]
    unsafe fn put_words(first: *mut u8, second: *mut u8, codes: [i32; 16]) {
        let half = |odd: usize| -> [i16; 8] { from_fn(|i| codes[2 * i + odd] as i16) };
        unsafe {
            first.cast::<[i16; 8]>().write_unaligned(half(0));
            second.cast::<[i16; 8]>().write_unaligned(half(1));
        }
    }

    #[inline]
    unsafe fn splat(x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline]
    unsafe fn load(p: *const f32) -> [f32; 16] {
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline]
    unsafe fn store(p: *mut f32, x: [f32; 16]) {
        unsafe { p.cast::<[f32; 16]>().write_unaligned(x) }
    }
    #[inline]
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        from_fn(|i| a[i] * b[i])
    }
    #[inline]
    unsafe fn sub(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        from_fn(|i| a[i] - b[i])
    }
    #[inline]
    unsafe fn fma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        // Not `mul_add`: without the instruction that is a slow library call.
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline]
    unsafe fn fnma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        from_fn(|i| c[i] - a[i] * b[i])
    }
    #[inline]
    unsafe fn sum(x: [f32; 16]) -> f32 {
        x.iter().sum()
    }
    #[inline]
    unsafe fn half(bits: u16) -> [f32; 16] {
        [f16::from_bits(bits).to_f32(); 16]
    }
    #[inline]
    unsafe fn pair(bits: u32) -> [f32; 16] {
        let lane = [bits as u16, (bits >> 16) as u16].map(|h| f16::from_bits(h).to_f32());
        from_fn(|i| if i < 2 { lane[i] } else { 0.0 })
    }
    #[inline]
    unsafe fn first(x: [f32; 16], n: usize) -> [f32; 16] {
        from_fn(|i| if i < n { x[i] } else { 0.0 })
    }
    #[inline]
    unsafe fn unsigned(words: [u64; 2]) -> [f32; 16] {
        from_fn(|i| f32::from((words[i / 8] >> (8 * (i % 8))) as u8))
    }
    #[inline]
    unsafe fn halves(p: *const u8) -> [f32; 16] {
        let x = unsafe { p.cast::<[[u8; 2]; 16]>().read_unaligned() };
        x.map(|x| f16::from_bits(u16::from_le_bytes(x)).to_f32())
    }
    #[inline]
    unsafe fn unsigned_at(p: *const u8) -> [f32; 16] {
        let x = unsafe { p.cast::<[u8; 16]>().read_unaligned() };
        x.map(f32::from)
    }
    #[inline]
    unsafe fn nibbles_at(p: *const u8) -> ([f32; 16], [f32; 16]) {
        let x = unsafe { p.cast::<[u8; 16]>().read_unaligned() };
        (x.map(|x| f32::from(x & 15)), x.map(|x| f32::from(x >> 4)))
    }
    #[inline]
    unsafe fn signed(p: *const u8) -> [f32; 16] {
        let x = unsafe { p.cast::<[i8; 16]>().read_unaligned() };
        x.map(f32::from)
    }
    #[inline]
    unsafe fn eights(x: [f32; 16], j: usize) -> [f32; 16] {
        from_fn(|i| x[2 * j + i / 8])
    }
    #[inline]
    unsafe fn fours(x: [f32; 16], j: usize) -> [f32; 16] {
        from_fn(|i| x[4 * j + i / 4])
    }
    #[inline]
    unsafe fn float(x: [i32; 16]) -> [f32; 16] {
        x.map(|x| x as f32)
    }
    #[inline]
    unsafe fn round(x: [f32; 16]) -> [i32; 16] {
        // Added to this number, a value below 2^22 is rounded to an integer, which stands in its low bits. Quicker than a library call for each.
        const ROUND: f32 = 12_582_912.0;
        x.map(|x| (x + ROUND).to_bits() as i32 - ROUND.to_bits() as i32)
    }
    #[inline]
    unsafe fn largest_bits(a: [f32; 16], b: [f32; 16]) -> u32 {
        a.iter().chain(&b).fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff))
    }
}
