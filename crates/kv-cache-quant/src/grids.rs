//! Two grids of levels for 2, 3 and 4 bits, and the 16 bits in which a group of channels says its scales.
//!
//! Levels are symmetric whole numbers up to 127, so that an inner product with codes is one of integers. A group is two halves. Each half has the grid
//! that errs less for it, and its scale; both scales are one half-precision number of 4 bits of fraction, and how it is divided between the halves:
//!
//! | bit 15 | 14 to 6 | 5 | 4 to 0 |
//! |---|---|---|---|
//! | grid of the first half | base: the half-precision number's exponent and fraction | grid of the second half | ratio r |
//!
//! The scales are `base (48 + 5 r) / 2^13` and `base (208 - 5 r) / 2^13`: at most 1 to 4, which keeps the step of the ratio at 4 %. An error of 2 % in a
//! scale costs about 1 % of the error, since the codes are chosen with the scale as it is.
//!
//! Levels of 4 bits: those of J. Max for a normal variable ("Quantizing for minimum distortion", 1960, table I) where a half has large values, and fuller
//! ones where it has not. These, and those of 3 and 2 bits, are what Lloyd's iteration gives for normal rows of 32 divided by their own scale, of which
//! each takes the better of two grids. `tests/codecs.rs` holds the errors.

use half::f16;

/// The levels above zero of the two grids, ascending; those below are their negatives. Behind each grid, where its highest level lies when codes are
/// first tried: as a share of the largest magnitude.
const fn levels(bits: u8) -> [(&'static [u8], f32); 2] {
    match bits {
        4 => [(&[6, 18, 31, 44, 58, 75, 96, 127], 0.99), (&[7, 22, 37, 52, 68, 86, 105, 127], 0.97)],
        3 => [(&[13, 41, 74, 127], 0.9), (&[16, 48, 84, 127], 0.88)],
        _ => [(&[35, 127], 0.6), (&[42, 127], 0.7)],
    }
}

/// Parts into which magnitudes up to the largest are sorted for a first try.
pub(crate) const CELLS: usize = 32;

/// A grid, ready for lookups. Magnitudes are in eighths of the levels' unit, so that each whole number has at most one border above it.
#[derive(Debug)]
pub(crate) struct Grid {
    /// The level nearest to the middle of each cell.
    pub(crate) cells: [f32; CELLS],
    /// Levels.
    pub(crate) count: usize,
    /// Between a level and the one before; the first is not used.
    pub(crate) borders: [f32; 8],
    /// The border in `i .. i + 1`, the last also beyond; infinity where there is none.
    pub(crate) near: [f32; 16],
    /// The level's index up to that border.
    pub(crate) below: [i32; 16],
}

impl Grid {
    /// # Panics
    /// When built in a constant, as it is meant to be: if two borders are too near to each other.
    const fn new((levels, top): (&[u8], f32)) -> Self {
        let count = levels.len();
        let mut grid =
            Self { cells: [0.0; CELLS], count, borders: [0.0; 8], near: [f32::INFINITY; 16], below: [0; 16] };
        let mut i = 1;
        while i < count {
            grid.borders[i] = (levels[i - 1] as f32 + levels[i] as f32) / 16.0;
            i += 1;
        }
        let (mut i, mut index) = (0, 0);
        while i < 16 {
            grid.below[i] = index as i32;
            if index + 1 < count && grid.borders[index + 1] < i as f32 + 1.0 {
                index += 1;
                assert!(grid.borders[index] >= i as f32, "two borders in one");
                grid.near[i] = grid.borders[index];
            }
            i += 1;
        }
        assert!(index + 1 == count, "a border beyond the table");
        let mut cell = 0;
        while cell < CELLS {
            let middle = (cell as f32 + 0.5) / CELLS as f32 * 127.0 / top / 8.0;
            let mut index = 0;
            while index + 1 < count && middle > grid.borders[index + 1] {
                index += 1;
            }
            grid.cells[cell] = levels[index] as f32;
            cell += 1;
        }
        grid
    }
}

/// The two grids of 2, 3 or 4 bits.
pub(crate) const fn grids(bits: usize) -> &'static [Grid; 2] {
    static OF_2: [Grid; 2] = [Grid::new(levels(2)[0]), Grid::new(levels(2)[1])];
    static OF_3: [Grid; 2] = [Grid::new(levels(3)[0]), Grid::new(levels(3)[1])];
    static OF_4: [Grid; 2] = [Grid::new(levels(4)[0]), Grid::new(levels(4)[1])];
    match bits {
        2 => &OF_2,
        3 => &OF_3,
        _ => &OF_4,
    }
}

/// The numbers of all codes of both grids, the second's from 16 on, plus 128. Codes ascend from the lowest level.
pub(crate) fn numbers(bits: u8) -> [u8; 32] {
    let mut table = [128; 32];
    for (grid, (levels, _)) in levels(bits).into_iter().enumerate() {
        for (i, level) in levels.iter().enumerate() {
            let (up, down) = (16 * grid + levels.len() + i, 16 * grid + levels.len() - 1 - i);
            (table[up], table[down]) = (128 + level, 128 - level);
        }
    }
    table
}

/// What `base` times a whole number is to be multiplied by.
pub(crate) const UNIT: f32 = 1.0 / 8192.0;
/// The bits of the base.
pub(crate) const BASE: u16 = 0x7fc0;
/// Where the grids of the halves are.
pub(crate) const GRID_BITS: [u32; 2] = [15, 5];
/// The whole numbers of the first half: `FIRST + STEP r`; of the second: `BOTH` less that.
pub(crate) const FIRST: u32 = 48;
pub(crate) const STEP: u32 = 5;
pub(crate) const BOTH: u32 = 256;
/// The bits of the ratio.
pub(crate) const RATIO: u16 = 31;

/// The ratio that suits two scales, and the base then, which is to be rounded by [`round_base`]. Zeros for scales of zero.
#[inline(always)]
pub(crate) fn divide([first, second]: [f32; 2]) -> (u16, f32) {
    let sum = first + second;
    let share = if sum > 0.0 { first / sum } else { 0.5 };
    let ratio = (share * (BOTH as f32 / STEP as f32) - FIRST as f32 / STEP as f32).round_ties_even();
    let ratio = ratio.clamp(0.0, f32::from(RATIO));
    let (a, b) = parts_of(ratio);
    // Least squares; but the larger half's where the other is too small for any ratio.
    let both = (first * a + second * b) / (a * a + b * b);
    let most = (first * (1.0 / 203.0)).max(second * (1.0 / 208.0));
    (ratio as u16, both.max(most) / UNIT)
}

/// The whole numbers that the base is multiplied by.
#[inline(always)]
fn parts_of(ratio: f32) -> (f32, f32) {
    let a = FIRST as f32 + STEP as f32 * ratio;
    (a, BOTH as f32 - a)
}

/// A half-precision number's bits rounded to the bits of a base.
#[inline(always)]
pub(crate) fn round_base(half: u16) -> u16 {
    (half & 0x7fff).saturating_add(0x20).min(0x7bc0) & BASE
}

/// The bits of a group.
#[inline(always)]
pub(crate) fn pack(base: u16, ratio: u16, grids: [bool; 2]) -> u16 {
    base | ratio | u16::from(grids[0]) << GRID_BITS[0] | u16::from(grids[1]) << GRID_BITS[1]
}

/// The scales of the halves for the base that the bits hold, given as a number. Exact: 5 bits times 8.
#[inline(always)]
pub(crate) fn scales(base: f32, bits: u16) -> [f32; 2] {
    let (a, b) = parts_of(f32::from(bits & RATIO));
    [base * a * UNIT, base * b * UNIT]
}

/// Scale and grid of a half.
pub(crate) fn unpack(bits: u16, half: usize) -> (f32, bool) {
    (scales(f16::from_bits(bits & BASE).to_f32(), bits)[half], bits >> GRID_BITS[half] & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_come_back() {
        for (first, second) in [(1.0, 1.0), (0.3, 0.5), (2e-4, 1.1e-4), (400.0, 500.0), (3e-5, 3.4e-5)] {
            for grids in [[false, true], [true, false]] {
                let (ratio, base) = divide([first, second]);
                let bits = pack(round_base(f16::from_f32(base).to_bits()), ratio, grids);
                for (half, given) in [first, second].into_iter().enumerate() {
                    let (scale, grid) = unpack(bits, half);
                    assert_eq!(grid, grids[half]);
                    let error = (scale / given - 1.0).abs();
                    assert!(error < 0.055, "{first} {second}: {scale}");
                }
            }
        }
    }

    #[test]
    fn the_larger_half_is_right_where_the_other_is_nothing() {
        for (scales, large) in [([1.0, 0.0], 0), ([0.01, 1.0], 1), ([0.0, 7.0], 1), ([5.0, 0.4], 0)] {
            let (ratio, base) = divide(scales);
            let bits = pack(round_base(f16::from_f32(base).to_bits()), ratio, [false; 2]);
            let (scale, _) = unpack(bits, large);
            assert!((scale / scales[large] - 1.0).abs() < 0.035, "{scales:?}: {scale}");
        }
        let (ratio, base) = divide([0.0; 2]);
        let bits = pack(round_base(f16::from_f32(base).to_bits()), ratio, [false; 2]);
        assert_eq!([unpack(bits, 0).0, unpack(bits, 1).0], [0.0; 2]);
    }

    #[test]
    fn grids_are_their_levels() {
        for bits in 2..=4usize {
            for (grid, levels) in grids(bits).iter().zip(levels(bits as u8)) {
                for t in 0..1300 {
                    let t = t as f32 / 80.0;
                    let run = t.min(15.0) as usize;
                    let index = grid.below[run] + i32::from(t > grid.near[run]);
                    let error = |l: u8| (f32::from(l) - 8.0 * t).abs();
                    let best = levels.0.iter().map(|&l| error(l)).fold(f32::INFINITY, f32::min);
                    assert_eq!(error(levels.0[index as usize]), best, "{bits} bits, {t}");
                }
            }
        }
    }
}
