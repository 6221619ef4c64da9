//! What the types with indices into a grid share: unpacking the grids, and signs.

/// Points of eight 2-bit digits, spelled out.
pub(super) const fn expand8<const N: usize>(points: &[u16; N], levels: [i8; 4]) -> [[i8; 8]; N] {
    let mut grid = [[0; 8]; N];
    let mut i = 0;
    while i < N {
        let mut j = 0;
        while j < 8 {
            grid[i][j] = levels[(points[i] >> (2 * j) & 3) as usize];
            j += 1;
        }
        i += 1;
    }
    grid
}

/// Points of four 3-bit digits, spelled out.
pub(super) const fn expand4<const N: usize>(points: &[u16; N], levels: [i8; 8]) -> [[i8; 4]; N] {
    let mut grid = [[0; 4]; N];
    let mut i = 0;
    while i < N {
        let mut j = 0;
        while j < 4 {
            grid[i][j] = levels[(points[i] >> (3 * j) & 7) as usize];
            j += 1;
        }
        i += 1;
    }
    grid
}

/// [`even_signs`] of each seven bits.
static EVEN: [u8; 128] = {
    let mut even = [0; 128];
    let mut bits = 0u8;
    while bits < 128 {
        even[bits as usize] = bits | (bits.count_ones() as u8 & 1) << 7;
        bits += 1;
    }
    even
};

/// The eight signs that seven bits stand for: the eighth makes the number of negative values even (`ksigns_iq2xs`).
#[inline(always)]
pub(super) fn even_signs(bits: u32) -> u8 {
    EVEN[(bits & 127) as usize]
}

/// Two points of four as one of eight.
#[inline(always)]
pub(super) fn both(a: [i8; 4], b: [i8; 4]) -> [i8; 8] {
    let bits = |point: [i8; 4]| u64::from(u32::from_le_bytes(point.map(|x| x as u8)));
    (bits(a) | bits(b) << 32).to_le_bytes().map(|x| x as i8)
}

/// `scale` times a point whose value `j` is negative where bit `j` of `signs` is set.
#[inline(always)]
pub(super) fn signed<const N: usize>(scale: f32, point: &[i8; N], signs: u8, out: &mut [f32; N]) {
    for j in 0..N {
        // The sign's bit moved to the top; by arithmetic, which vectorizes.
        let sign = u32::from(signs) << (31 - j) & 0x8000_0000;
        out[j] = f32::from_bits((scale * f32::from(point[j])).to_bits() ^ sign);
    }
}
