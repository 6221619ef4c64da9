//! 2, 3 and 4 bits: for each half of a group the better of two grids, and fitted scales.
//!
//! For given codes the scale of least squared error is `sum x y / sum y^2` with the levels y, and it leaves the error `sum x^2 - (sum x y)^2 / sum y^2`.
//! So codes of both grids are tried with the scale that suits a half's largest value, near enough: the nearest level of the middle of a 32nd part. What
//! the best scale for them would leave decides. The scales of the two halves are rounded together ([`grids`]), and then the nearest codes are written.
//!
//! 16 halves at a time, so that what is done once a half is done in lanes.

use super::{Scratch, most_of};
use crate::grids::{self, CELLS, GRID_BITS, Grid};
use crate::layout::IntCode;
use crate::simd::Simd;

/// Halves at a time.
const LANES: usize = 16;

/// The sums that judge a grid: in lanes, a half each.
struct Sums {
    /// `sum |x| y`.
    xy: [f32; LANES],
    /// `sum y^2`.
    yy: [f32; LANES],
}

impl Sums {
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    unsafe fn new<S: Simd>(xy: &[S::F; LANES], yy: &[S::F; LANES]) -> Self {
        let mut sums = Self { xy: [0.0; LANES], yy: [0.0; LANES] };
        // SAFETY: the caller's; 16 values.
        unsafe {
            S::store(sums.xy.as_mut_ptr(), S::gather::<false>(xy));
            S::store(sums.yy.as_mut_ptr(), S::gather::<false>(yy));
        }
        sums
    }
}

/// Codes and scales of rows of finite values. Zeros have scales of zero.
///
/// # Safety
/// The instruction set of S; rows of whole 16s that the scratch takes.
#[inline(always)]
pub(super) unsafe fn encode<S: Simd, const BITS: usize>(code: &IntCode, rows: &[f32], n: usize, scratch: &mut Scratch) {
    let (part, halves_of_row) = (code.part(), 2 * code.groups(n));
    let count = rows.len() / n * halves_of_row;
    let (mut row, mut channel, mut half) = (0, 0, 0);
    for (batch, bits) in (0..count).step_by(LANES).zip(scratch.scales.chunks_mut(LANES / 2)) {
        // Where each half begins, and its vectors. The second half of a row's last group may have none.
        let mut places = [(0, 0); LANES];
        for place in places.iter_mut().take(count - batch) {
            *place = (row + channel, part.min(n - channel.min(n)) / 16);
            (channel, half) = (channel + part, half + 1);
            if half == halves_of_row {
                (row, channel, half) = (row + n, 0, 0);
            }
        }
        let slice = |(at, vectors): (usize, usize)| &rows[at.min(rows.len())..][..16 * vectors];
        // SAFETY: the caller's; 16 values, 32 bytes, 16 codes each.
        unsafe {
            let zero = [S::splat(0.0); LANES];
            let mut most = zero;
            for i in 0..LANES {
                most[i] = most_of::<S>(most[i], slice(places[i]));
            }
            let mut inverse = [0.0f32; LANES];
            S::store(inverse.as_mut_ptr(), S::gather::<true>(&most));
            for x in &mut inverse {
                // The largest is in the last cell. Below 1e-30 the quotient would not be finite.
                *x = if *x > 1e-30 { (CELLS as f32 - 1e-3) / *x } else { 0.0 };
            }
            let (mut xy, mut yy) = ([zero; 2], [zero; 2]);
            let tables = const { grids::grids(BITS) };
            for i in 0..LANES {
                let factor = S::splat(inverse[i]);
                for x in slice(places[i]).as_chunks::<16>().0 {
                    let v = S::abs(S::load(x.as_ptr()));
                    let cell = S::mul(v, factor);
                    for grid in 0..2 {
                        let y = S::lookup_floats(&tables[grid].cells, cell);
                        xy[grid][i] = S::add(xy[grid][i], S::mul(v, y));
                        yy[grid][i] = S::add(yy[grid][i], S::mul(y, y));
                    }
                }
            }
            let sums = [Sums::new::<S>(&xy[0], &yy[0]), Sums::new::<S>(&xy[1], &yy[1])];
            let second = choose(&sums, &places, &mut inverse);
            pack::<S>(&second, &mut inverse, bits);
            for i in 0..LANES {
                let (at, vectors) = places[i];
                let grid: &Grid = &tables[usize::from(second[i])];
                let codes = &mut scratch.codes[at.min(rows.len())..][..16 * vectors];
                for (x, codes) in slice(places[i]).as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0) {
                    S::put_codes(grid, S::load(x.as_ptr()), inverse[i], codes.as_mut_ptr());
                }
            }
        }
    }
}

/// Whether a half has the second grid; and the scale that suits its codes best. A half that is not there has the scale of its neighbour.
#[inline(always)]
fn choose(sums: &[Sums; 2], places: &[(usize, usize); LANES], scale: &mut [f32; LANES]) -> [bool; LANES] {
    let [a, b] = sums;
    let mut second = [false; LANES];
    for i in 0..LANES {
        let gain = |sums: &Sums| sums.xy[i] * (sums.xy[i] / sums.yy[i]);
        second[i] = gain(b) > gain(a);
        scale[i] = if second[i] { b.xy[i] / b.yy[i] } else { a.xy[i] / a.yy[i] };
    }
    for i in 0..LANES {
        if places[i].1 == 0 {
            (second[i], scale[i]) = (false, if i % 2 == 1 { scale[i - 1] } else { 0.0 });
        }
    }
    second
}

/// The bits of each group; of its scales, what magnitudes are multiplied by to be in eighths of a level's unit.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
unsafe fn pack<S: Simd>(second: &[bool; LANES], scale: &mut [f32; LANES], bits: &mut [u16]) {
    let (mut bases, mut ratios, mut halves) = ([0.0f32; 16], [0u16; LANES / 2], [0u8; 32]);
    for (i, pair) in scale.as_chunks::<2>().0.iter().enumerate() {
        (ratios[i], bases[i]) = grids::divide(*pair);
    }
    // SAFETY: the caller's; 16 values, 32 bytes.
    unsafe {
        S::put_halves(S::load(bases.as_ptr()), halves.as_mut_ptr());
        let mut rounded = [0u16; 16];
        for (rounded, half) in rounded.iter_mut().zip(halves.as_chunks::<2>().0) {
            *rounded = grids::round_base(u16::from_le_bytes(*half)).to_le();
        }
        S::store(bases.as_mut_ptr(), S::halves(rounded.as_ptr().cast()));
        for (i, bits) in bits.iter_mut().enumerate() {
            *bits = grids::pack(u16::from_le(rounded[i]), ratios[i], [second[2 * i], second[2 * i + 1]]);
        }
    }
    for (i, pair) in scale.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *pair = grids::scales(bases[i], ratios[i]).map(|s| if s > 0.0 { 0.125 / s } else { 0.0 });
    }
    const { assert!(GRID_BITS[0] == 15) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, Op};

    struct Encode<'a>(usize, IntCode, &'a [f32], &'a mut Scratch);

    impl Op for Encode<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self) {
            let Self(n, code, rows, scratch) = self;
            // SAFETY: `Isa::run` has the instruction set.
            unsafe {
                match code.bits {
                    4 => encode::<S, 4>(&code, rows, n, scratch),
                    3 => encode::<S, 3>(&code, rows, n, scratch),
                    _ => encode::<S, 2>(&code, rows, n, scratch),
                }
            }
        }
    }

    /// The same by all instruction sets.
    fn encoded(n: usize, code: IntCode, rows: &[f32]) -> Scratch {
        let mut scratch = Scratch::new();
        Isa::Portable.run(Encode(n, code, rows, &mut scratch));
        for isa in Isa::available() {
            let mut other = Scratch::new();
            isa.run(Encode(n, code, rows, &mut other));
            let groups = rows.len() / n * code.groups(n);
            assert_eq!(other.scales[..groups], scratch.scales[..groups], "{}", isa.name());
            assert!(other.codes[..rows.len()] == scratch.codes[..rows.len()], "{}", isa.name());
        }
        scratch
    }

    /// The error of `encode` of a group, and that of the best of 400 scales on either grid for each half.
    fn errors(bits: u8, x: &[f32]) -> (f64, f64) {
        let code = IntCode::lloyd(bits, 64);
        let scratch = encoded(64, code, x);
        let (mut found, mut best) = (0.0, 0.0);
        for (half, x) in x.chunks(32).enumerate() {
            let (scale, second) = grids::unpack(scratch.scales[0], half);
            let error =
                |x: f32, scale: f64, c: u8, second| (f64::from(x) - scale * f64::from(code.number(c, second))).powi(2);
            let codes = scratch.codes[32 * half..].iter();
            found += x.iter().zip(codes).map(|(&x, &c)| error(x, f64::from(scale), c, second)).sum::<f64>();
            let largest = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            let mut least = f64::INFINITY;
            for (second, i) in (1..400).flat_map(|i| [(false, i), (true, i)]) {
                let scale = f64::from(i) * f64::from(largest) / 100.0 / 127.0;
                let nearest = |x| (0..1 << bits).map(|c| error(x, scale, c, second)).fold(f64::INFINITY, f64::min);
                least = least.min(x.iter().map(|&x| nearest(x)).sum());
            }
            best += least;
        }
        (found, best)
    }

    #[test]
    fn near_the_best_scales_and_grids() {
        // Near normal: sums of sines; few large values; all of one size; halves of different sizes.
        let wave = |i: usize| (0..6).map(|k| ((i * (7 * k + 3) + k) as f32 * 0.37).sin()).sum::<f32>();
        let rows: [Vec<f32>; 4] = [
            (0..64).map(wave).collect(),
            (0..64).map(|i| if i % 16 == 3 { 5.0 + wave(i) * 0.1 } else { wave(i) * 0.3 }).collect(),
            (0..64).map(|i| if i % 3 == 0 { 1.5 } else { -1.5 }).collect(),
            (0..64).map(|i| if i < 32 { wave(i) } else { 0.4 * wave(i) }).collect(),
        ];
        for (name, x) in ["near normal", "few large", "two values", "two sizes"].iter().zip(&rows) {
            for bits in 2..=4 {
                let (found, best) = errors(bits, x);
                let power: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
                assert!(found <= best * 1.15 + power * 2e-3, "{name}, {bits} bits: {found}, best {best} of {power}");
            }
        }
        for tiny in [0.0, 1e-9] {
            assert_eq!(encoded(64, IntCode::lloyd(4, 64), &[tiny; 64]).scales[0] & grids::BASE, 0);
        }
    }

    #[test]
    fn halves_of_any_row() {
        // Rows that end in a first half, in a short one, and more halves than lanes.
        for (n, group, rows) in [(16, 64, 5), (48, 64, 3), (80, 64, 2), (128, 32, 7), (512, 32, 2), (128, 128, 4)] {
            let x: Vec<f32> = (0..n * rows).map(|i| ((i * 37 + 11) as f32 * 0.731).sin()).collect();
            for bits in 2..=4 {
                let code = IntCode::lloyd(bits, group);
                let scratch = encoded(n, code, &x);
                let limit = [0.0, 0.0, 0.15, 0.04, 0.009][usize::from(bits)];
                for (row, x) in x.chunks(n).enumerate() {
                    let mut error = 0.0;
                    for (c, x) in x.iter().enumerate() {
                        let bits = scratch.scales[row * code.groups(n) + c / group];
                        let (scale, second) = grids::unpack(bits, c % group / code.part());
                        error += (x - scale * code.number(scratch.codes[row * n + c], second) as f32).powi(2);
                    }
                    let power: f32 = x.iter().map(|x| x * x).sum();
                    assert!(error < limit * power, "{n} in {group}, {bits} bits: {}", error / power);
                }
            }
        }
    }
}
