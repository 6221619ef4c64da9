//! From rows to units, and back to values.

use super::kinds::{Kind, ROWS, codes, put_codes, whole_factors};
use crate::dispatch::IntegerOp;
use crate::lanes::{Lanes, Plain};
use crate::quants::Quants;
use crate::rounded_dot::half_unit;
use std::marker::PhantomData;

/// Writes up to 16 rows, `row_bytes` each, as units.
pub(super) struct Pack<'a, K> {
    /// Whole rows.
    pub(super) rows: &'a [u8],
    pub(super) row_bytes: usize,
    pub(super) cols: usize,
    /// `cols / COLS` units.
    pub(super) units: &'a mut [u8],
    pub(super) kind: PhantomData<K>,
}

impl<K: Kind> IntegerOp for Pack<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let Self { rows, row_bytes, cols, units, .. } = self;
        assert!(units.len() == cols / K::COLS * K::BYTES && cols.is_multiple_of(K::COLS));
        units.fill(0);
        let block_bytes = row_bytes / (cols / K::COLS).max(1);
        for (row, bytes) in rows.chunks_exact(row_bytes).enumerate() {
            for (block, unit) in bytes.chunks_exact(block_bytes).zip(units.chunks_exact_mut(K::BYTES)) {
                K::fill_head(block, row, &mut unit[..K::HEAD]);
            }
        }
        let mut words = [[0u32; ROWS]; 16];
        for first in (0..cols).step_by(64) {
            for (row, bytes) in rows.chunks_exact(row_bytes).enumerate() {
                // SAFETY: a row of whole blocks; the instruction set is the caller's.
                let of_row = unsafe { sixty_four::<S, K::Source, Stored<K>>(bytes, cols, first) };
                for (words, word) in words.iter_mut().zip(of_row) {
                    words[row] = u32::from_le(word);
                }
            }
            for (i, words) in words.iter().enumerate() {
                let column = first + 4 * i;
                if column < cols {
                    let step = column % K::COLS / 4;
                    put_codes::<K>(&mut units[column / K::COLS * K::BYTES..][..K::BYTES], step / 8, step % 8, words);
                }
            }
        }
    }
}

/// Which codes are asked for.
pub(crate) trait Codes {
    /// Codes `64 j ..` of a unit.
    ///
    /// # Safety
    /// As [`Quants::codes`].
    unsafe fn of<S: Lanes>(unit: *const u8, j: usize) -> S::B;
}

/// Those that are stored.
struct Stored<K>(PhantomData<K>);

impl<K: Kind> Codes for Stored<K> {
    #[inline(always)]
    unsafe fn of<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: the caller's.
        unsafe { K::stored::<S>(unit, j) }
    }
}

/// 64 codes of a row, from column `first` on, as words of four. Beyond the last column they are anything.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
pub(crate) unsafe fn sixty_four<S: Lanes, Q: Quants, C: Codes>(row: &[u8], cols: usize, first: usize) -> [u32; 16] {
    let (unit, j) = (first / Q::LEN, first % Q::LEN / 64);
    let bytes = &row[unit * Q::BYTES..];
    let mut words = [0u32; 16];
    // SAFETY: a whole unit is there, or half of one, which is padded; the array has 64 bytes.
    unsafe {
        let codes = if unit < cols / Q::LEN {
            assert!(bytes.len() >= Q::BYTES);
            C::of::<S>(bytes.as_ptr(), j)
        } else {
            assert!(bytes.len() >= Q::BYTES / 2);
            C::of::<S>(half_unit::<Q>(bytes.as_ptr()).as_ptr(), j)
        };
        S::store_bytes(words.as_mut_ptr().cast(), codes);
    }
    words
}

/// Writes the values of a panel's first rows, `[rows, cols]`.
pub(super) fn unpack_values<K: Kind>(units: &[u8], cols: usize, rows: usize, values: &mut [f32]) {
    assert!(units.len() == cols / K::COLS * K::BYTES && values.len() == rows * cols && rows <= ROWS);
    for (u, unit) in units.chunks_exact(K::BYTES).enumerate() {
        for step in 0..K::COLS / 4 {
            // SAFETY: a whole unit; plain Rust runs everywhere.
            let (codes, (scales, mins)) = unsafe {
                (
                    codes::<Plain, K>(unit.as_ptr(), step / 8, step % 8),
                    whole_factors::<Plain, K>(unit.as_ptr(), 4 * step / K::Source::SUB),
                )
            };
            for row in 0..rows {
                let values = &mut values[row * cols + u * K::COLS + 4 * step..][..4];
                for (value, &code) in values.iter_mut().zip(&codes[4 * row..]) {
                    let scaled = scales[row] * (i32::from(code) - K::Source::ZERO) as f32;
                    *value = if K::Source::MINS { scaled - mins[row] } else { scaled };
                }
            }
        }
    }
}
