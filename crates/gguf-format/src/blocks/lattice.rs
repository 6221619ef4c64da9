//! Grids as a quantizer sees them: which points are in, and which of these are near the others.
//!
//! A point of `P` digits has a *code*: the digits side by side, the first in the lowest bits. For each point that is not in the grid
//! the points of the grid at its `shells` least distances are listed, nearest first, those of one distance in the grid's order: the
//! search among them keeps the first of equals, so the order is part of the format's results (`iq2xs_init_impl` and
//! `iq3xs_init_impl` in ggml-quants.c).

use alloc::vec;
use alloc::vec::Vec;

use super::lanes::{build, each};

/// Set in an entry of [`Lattice::entries`] whose point is not in the grid.
const OFF: u32 = 1 << 31;
/// Bits of such an entry that hold the length of its list.
const LENGTH_BITS: u32 = 8;

/// A grid, and the neighbours of what is not in it.
pub(super) struct Lattice {
    /// By code: a point's index in the grid, or [`OFF`] with the place and length of its list.
    entries: Vec<u32>,
    /// The lists, one after the other: codes by eights, the last of a list repeated to fill its last eight.
    near: Vec<[u16; 8]>,
}

/// A lattice that is made when it is first needed: of all constants of the codecs, only this takes more than microseconds.
pub(super) struct LazyLattice {
    make: fn() -> Lattice,
    #[cfg(feature = "std")]
    made: std::sync::OnceLock<Lattice>,
}

impl LazyLattice {
    pub(super) const fn new(make: fn() -> Lattice) -> Self {
        Self {
            make,
            #[cfg(feature = "std")]
            made: std::sync::OnceLock::new(),
        }
    }

    /// The one lattice of the process.
    #[cfg(feature = "std")]
    pub(super) fn get(&self) -> &Lattice {
        self.made.get_or_init(self.make)
    }

    /// A new lattice: without `std` there is nothing safe to keep it in.
    #[cfg(not(feature = "std"))]
    pub(super) fn get(&self) -> alloc::boxed::Box<Lattice> {
        alloc::boxed::Box::new((self.make)())
    }
}

/// Where a point is.
pub(super) enum Place<'a> {
    /// In the grid.
    In,
    /// Not in it; the codes near it. There is at least one eight.
    Near(&'a [[u16; 8]]),
}

impl Lattice {
    /// The grid of `points`, whose `P` digits of `bits` bits are below `levels`.
    pub(super) fn new<const P: usize>(points: &[u16], bits: u32, levels: u16, shells: usize) -> Self {
        let digit = |code: u16, i: usize| code >> (bits * i as u32) & ((1 << bits) - 1);
        let code = |digits: &[u16; P]| (0..P).fold(0, |code, i| code | digits[i] << (bits * i as u32));
        let columns: [Vec<u8>; P] = core::array::from_fn(|i| points.iter().map(|&p| digit(p, i) as u8).collect());
        let mut entries = vec![OFF; usize::from(code(&[levels - 1; P])) + 1];
        for (index, &point) in points.iter().enumerate() {
            entries[usize::from(point)] = index as u32;
        }
        let mut near = Vec::new();
        let mut distances = vec![0u8; points.len()];
        let mut digits = [0; P];
        loop {
            let entry = &mut entries[usize::from(code(&digits))];
            if *entry == OFF {
                // At most 4 * 7 * 7 or 8 * 2 * 2.
                distances.fill(0);
                for (column, &at) in columns.iter().zip(&digits) {
                    for (distance, &digit) in distances.iter_mut().zip(column) {
                        let along = digit.abs_diff(at as u8);
                        *distance += along * along;
                    }
                }
                let start = near.len();
                push_nearest(points, &distances, shells, &mut near);
                *entry = OFF | (start as u32) << LENGTH_BITS | (near.len() - start) as u32;
            }
            // The next point, the first digit fastest.
            let Some(i) = digits.iter().position(|&digit| digit + 1 < levels) else { break };
            digits[..i].fill(0);
            digits[i] += 1;
        }
        Self { entries, near }
    }

    /// Where the point `code` is; its digits are below the number of levels.
    #[inline(always)]
    pub(super) fn find(&self, code: u32) -> Place<'_> {
        let entry = self.entries[code as usize];
        if entry & OFF == 0 {
            return Place::In;
        }
        let start = (entry & !OFF) >> LENGTH_BITS;
        Place::Near(&self.near[start as usize..][..(entry & ((1 << LENGTH_BITS) - 1)) as usize])
    }

    /// The index of a point that is in the grid.
    #[inline(always)]
    pub(super) fn index(&self, code: u32) -> u16 {
        self.entries[code as usize] as u16
    }
}

/// Appends the points at the `shells` least of the `distances`.
fn push_nearest(points: &[u16], distances: &[u8], shells: usize, near: &mut Vec<[u16; 8]>) {
    let mut list = Vec::new();
    let mut least = 0;
    for _ in 0..shells {
        // u8::MAX is no distance.
        let next = distances.iter().fold(u8::MAX, |next, &d| if d >= least && d < next { d } else { next });
        if next == u8::MAX {
            break;
        }
        list.extend(points.iter().zip(distances).filter(|&(_, &d)| d == next).map(|(&point, _)| point));
        least = next + 1;
    }
    near.extend(list.chunks(8).map(|chunk| core::array::from_fn(|i| chunk[i.min(chunk.len() - 1)])));
}

/// The first of the codes in `near` with the least sum of costs; `cost[digit][i]` is what value `i` costs. For 2-bit digits 0, 1, 2.
///
/// Costs that are not numbers or infinite never are the least; if there are no others, the first code.
#[inline(always)]
pub(super) fn cheapest(near: &[[u16; 8]], cost: &[[f32; 8]; 3]) -> u32 {
    // In bits, and what changes them: a choice between floats in memory would become eight loads.
    let zero = each(&cost[0], f32::to_bits);
    let one: [u32; 8] = build(|i| zero[i] ^ cost[1][i].to_bits());
    let two: [u32; 8] = build(|i| zero[i] ^ cost[2][i].to_bits());
    first_least(near, |codes| {
        let mut sums = [0.0; 8];
        for i in 0..8 {
            for j in 0..8 {
                // The digit's low bit and its high bit, all over.
                let low = (codes[j] << (31 - 2 * i)) as i32 >> 31;
                let high = (codes[j] << (30 - 2 * i)) as i32 >> 31;
                sums[j] += f32::from_bits(zero[i] ^ (one[i] & low as u32) ^ (two[i] & high as u32));
            }
        }
        sums
    })
}

/// The first of the codes in `near` with the least sum; `sums` gives those of eight.
#[inline(always)]
pub(super) fn first_least(near: &[[u16; 8]], sums: impl Fn(&[u32; 8]) -> [f32; 8]) -> u32 {
    let (mut least, mut at) = ([f32::MAX; 8], [0u32; 8]);
    for (chunk, codes) in near.iter().enumerate() {
        let codes = each(codes, u32::from);
        let sums = sums(&codes);
        for j in 0..8 {
            let less = sums[j] < least[j];
            least[j] = if less { sums[j] } else { least[j] };
            at[j] = if less { chunk as u32 } else { at[j] };
        }
    }
    let mut best = f32::MAX;
    for sum in least {
        best = if sum < best { sum } else { best };
    }
    let mut first = u32::MAX;
    for j in 0..8 {
        let place = at[j] * 8 + j as u32;
        first = if least[j] == best && place < first { place } else { first };
    }
    // All sums are NaN or infinite: the first.
    let first = if best < f32::MAX { first } else { 0 };
    u32::from(near[first as usize / 8][first as usize % 8])
}
