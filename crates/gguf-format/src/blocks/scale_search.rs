//! Quantizing the scales of a super-block themselves, when importance weights are given.
//!
//! Values are not negative, so is the common scale (`make_qp_quants` in ggml-quants.c): a search among nine inverse scales by
//! weighted square error, then up to five rounds of coordinate descent on the codes.

use super::rounding::nearest_int;
use super::symmetric_search::ZERO;

/// Codes 0..=`nmax` for `x` under the weights `w`, and their scale.
///
/// A negative value (a least squares fit may have a negative scale when weights are zero) wraps around in its byte, as in ggml.
#[inline(always)]
pub(super) fn scale_search<const N: usize>(nmax: u8, x: &[f32; N], w: &[f32; N]) -> (f32, [u8; N]) {
    let max = x.iter().fold(0.0, |max, &x| if x > max { x } else { max });
    let mut codes = [0u8; N];
    if max < ZERO {
        return (0.0, codes);
    }
    let (limit, nmax) = (i32::from(nmax), f32::from(nmax));
    let mut inverse = nmax / max;
    let scale = 1.0 / inverse;
    let mut best = 0.0;
    for i in 0..N {
        let diff = x[i] - scale * f32::from(nearest_int(inverse * x[i]) as u8);
        best += w[i] * diff * diff;
    }
    for step in (-4i8..=4).filter(|&step| step != 0) {
        let candidate = (0.1 * f32::from(step) + nmax) / max;
        let scale = 1.0 / candidate;
        let mut error = 0.0;
        for i in 0..N {
            let diff = x[i] - scale * nearest_int(candidate * x[i]).min(limit) as f32;
            error += w[i] * diff * diff;
        }
        if error < best {
            best = error;
            inverse = candidate;
        }
    }
    let (mut sum_lx, mut sum_l2) = (0.0, 0.0);
    for i in 0..N {
        let l = nearest_int(inverse * x[i]).min(limit);
        codes[i] = l as u8;
        sum_lx += w[i] * x[i] * l as f32;
        sum_l2 += w[i] * l as f32 * l as f32;
    }
    for _ in 0..5 {
        let mut changed = false;
        for i in 0..N {
            let old = f32::from(codes[i]);
            let mut lx = sum_lx - w[i] * x[i] * old;
            let mut l2 = sum_l2 - w[i] * old * old;
            if lx > 0.0 && l2 > 0.0 {
                let new = nearest_int(x[i] * l2 / lx).min(limit);
                if new != i32::from(codes[i]) {
                    lx += w[i] * x[i] * new as f32;
                    l2 += w[i] * new as f32 * new as f32;
                    if lx * lx * sum_l2 > sum_lx * sum_lx * l2 {
                        codes[i] = new as u8;
                        sum_lx = lx;
                        sum_l2 = l2;
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    (if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 }, codes)
}
