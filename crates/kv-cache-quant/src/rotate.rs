//! The Hadamard rotation of `quant_core::rotation`, in vectors: the same operations in the same order, so the same bits.

use crate::simd::Simd;
use quant_core::rotation::{Rotation, hadamard};

/// Rotates a row in place.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
pub(crate) unsafe fn rotate<S: Simd>(rotation: &Rotation, row: &mut [f32]) {
    if rotation.is_identity() {
        return;
    }
    let mut rest = &mut row[..rotation.width()];
    for block in rotation.blocks() {
        let (head, tail) = rest.split_at_mut(block);
        if block < 16 {
            hadamard(head);
        } else {
            // SAFETY: the caller's; whole vectors, for the length is a power of two.
            unsafe {
                match block {
                    64 => in_registers::<S, 4>(head),
                    128 => in_registers::<S, 8>(head),
                    _ => sixteens::<S>(head),
                }
            }
        }
        rest = tail;
    }
}

/// # Safety
/// The instruction set of S; the length is a power of two, 16 or more.
#[inline(always)]
unsafe fn sixteens<S: Simd>(x: &mut [f32]) {
    let n = x.len();
    let p = x.as_mut_ptr();
    // SAFETY: the caller's; `i` and `i + h` stay below `n`.
    unsafe {
        let scale = S::splat(1.0 / (n as f32).sqrt());
        for i in (0..n).step_by(16) {
            let x = S::butterfly::<2>(S::butterfly::<1>(S::butterfly::<0>(S::load(p.add(i)))));
            S::store(p.add(i), S::butterfly::<3>(S::mul(x, scale)));
        }
        let mut h = 16;
        while h < n {
            for from in (0..n).step_by(2 * h) {
                for i in (from..from + h).step_by(16) {
                    let (a, b) = (S::load(p.add(i)), S::load(p.add(i + h)));
                    S::store(p.add(i), S::add(a, b));
                    S::store(p.add(i + h), S::sub(a, b));
                }
            }
            h *= 2;
        }
    }
}

/// [`sixteens`] of `16 VECTORS` values, loaded and stored once.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn in_registers<S: Simd, const VECTORS: usize>(values: &mut [f32]) {
    let p = values.as_mut_ptr();
    // SAFETY: the caller's; `VECTORS` whole vectors.
    unsafe {
        let scale = S::splat(1.0 / (values.len() as f32).sqrt());
        let mut x = [scale; VECTORS];
        for (i, x) in x.iter_mut().enumerate() {
            let low = S::butterfly::<2>(S::butterfly::<1>(S::butterfly::<0>(S::load(p.add(16 * i)))));
            *x = S::butterfly::<3>(S::mul(low, scale));
        }
        let mut h = 1;
        while h < VECTORS {
            for i in 0..VECTORS {
                if i & h == 0 {
                    (x[i], x[i | h]) = (S::add(x[i], x[i | h]), S::sub(x[i], x[i | h]));
                }
            }
            h *= 2;
        }
        for (i, x) in x.iter().enumerate() {
            S::store(p.add(16 * i), *x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, Op};

    #[test]
    fn has_the_bits_of_the_plain_one() {
        struct Rotate<'a>(Rotation, &'a mut [f32]);
        impl Op for Rotate<'_> {
            type Output = ();
            #[inline(always)]
            fn run<S: Simd>(self) {
                // SAFETY: `Isa::run` has the instruction set.
                unsafe { rotate::<S>(&self.0, self.1) }
            }
        }
        for (width, largest) in [(16, 512), (20, 512), (64, 512), (96, 512), (128, 64), (512, 512), (40, 0), (8, 8)] {
            let rotation = Rotation::new(width, largest);
            let row: Vec<f32> = (0..width).map(|i| ((i * 37 + 11) as f32 * 0.731).sin()).collect();
            let mut expected = row.clone();
            rotation.apply(&mut expected);
            for isa in Isa::available() {
                let mut found = row.clone();
                isa.run(Rotate(rotation, &mut found));
                assert_eq!(found, expected, "{width} in blocks of {largest}, {}", isa.name());
            }
        }
    }
}
