//! From codes to values. Each type unpacks its codes to bytes, then comes here: two loops that vectorize each, where one that does
//! both often does not.

/// `d q` of each code.
#[inline(always)]
pub(super) fn scaled<const N: usize>(codes: &[i8; N], d: f32, out: &mut [f32; N]) {
    for (x, &q) in out.iter_mut().zip(codes) {
        *x = f32::from(q) * d;
    }
}

/// `d q + m` of each code.
#[inline(always)]
pub(super) fn scaled_and_moved<const N: usize>(codes: &[i8; N], d: f32, m: f32, out: &mut [f32; N]) {
    for (x, &q) in out.iter_mut().zip(codes) {
        *x = f32::from(q) * d + m;
    }
}

/// The low nibbles, then the high nibbles.
#[inline(always)]
pub(super) fn nibbles<const N: usize, const TWICE: usize>(bytes: &[u8; N]) -> [i8; TWICE] {
    let mut codes = [0; TWICE];
    let (low, high) = codes.split_at_mut(N);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = (byte & 15) as i8;
        *high = (byte >> 4) as i8;
    }
    codes
}
