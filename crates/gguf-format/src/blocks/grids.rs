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

/// The eight signs that seven bits stand for: the eighth makes the number of negative values even (`ksigns_iq2xs`).
#[inline(always)]
pub(super) fn even_signs(bits: u32) -> u8 {
    let bits = (bits & 127) as u8;
    bits | (bits.count_ones() as u8 & 1) << 7
}

/// `scale` times a point whose value `j` is negative where bit `j` of `signs` is set.
#[inline(always)]
pub(super) fn signed<const N: usize>(scale: f32, point: &[i8; N], signs: u8, out: &mut [f32; N]) {
    for j in 0..N {
        let magnitude = scale * f32::from(point[j]);
        out[j] = if signs >> j & 1 == 1 { -magnitude } else { magnitude };
    }
}
