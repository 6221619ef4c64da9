//! Rows of activations to codes.

use super::{ActivationGrid, ActivationScale};
use rayon::prelude::*;

/// Where the scales come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ActivationScales {
    /// Each row's own range.
    Token,
    /// The range of all rows that run together.
    Tensor,
    /// Fixed beforehand.
    Static(ActivationScale),
}

/// How activations are rounded before a product.
///
/// ```
/// use quant_core::activation::{ActivationGrid, ActivationQuantizer, ActivationScales};
/// let int8 = ActivationQuantizer { grid: ActivationGrid::Int8 { symmetric: true }, scales: ActivationScales::Token };
/// let (mut codes, mut scales) = (Vec::new(), Vec::new());
/// int8.codes(&[51.0, -12.75, 0.5, 0.05], 2, &mut codes, &mut scales)?;
/// assert_eq!(codes, [127, -32, 127, 13]);
/// assert_eq!(scales[0].scale, 0.4);
/// # Ok::<(), quant_core::activation::ActivationError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationQuantizer {
    /// What values are rounded to.
    pub grid: ActivationGrid,
    /// How far a step is.
    pub scales: ActivationScales,
}

/// Values that are no whole rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{values} activations are not whole rows of {columns}")]
pub struct ActivationError {
    /// Values given.
    pub values: usize,
    /// Values of a row.
    pub columns: usize,
}

/// Fewer values than this are not worth several threads.
const PARALLEL: usize = 1 << 15;

impl ActivationQuantizer {
    /// The scale of each row of `x`, `[rows, columns]`.
    ///
    /// # Errors
    /// [`ActivationError`] if the values are no whole rows.
    pub fn scales(&self, x: &[f32], columns: usize) -> Result<Vec<ActivationScale>, ActivationError> {
        if columns == 0 || !x.len().is_multiple_of(columns) {
            return Err(ActivationError { values: x.len(), columns });
        }
        let rows = x.len() / columns;
        Ok(match self.scales {
            ActivationScales::Static(scale) => vec![scale; rows],
            ActivationScales::Token => {
                let of_row = |row: &[f32]| self.spanning(range(row));
                match x.len() {
                    ..PARALLEL => x.chunks_exact(columns).map(of_row).collect(),
                    _ => x.par_chunks_exact(columns).map(of_row).collect(),
                }
            }
            ActivationScales::Tensor => vec![self.spanning(range(x)); rows],
        })
    }

    fn spanning(&self, range: Option<(f32, f32)>) -> ActivationScale {
        range.map_or(ActivationScale::NAN, |(low, high)| ActivationScale::spanning(self.grid, low, high))
    }

    /// The codes of `x`, `[rows, columns]`, and each row's scale. Integer codes as they are, E4M3's as bytes in an i8.
    ///
    /// `codes` and `scales` are cleared first.
    ///
    /// # Errors
    /// [`ActivationError`] if the values are no whole rows.
    pub fn codes(
        &self,
        x: &[f32],
        columns: usize,
        codes: &mut Vec<i8>,
        scales: &mut Vec<ActivationScale>,
    ) -> Result<(), ActivationError> {
        *scales = self.scales(x, columns)?;
        codes.clear();
        codes.resize(x.len(), 0);
        let is_static = matches!(self.scales, ActivationScales::Static(_));
        let encode = |((x, codes), scale): ((&[f32], &mut [i8]), &mut ActivationScale)| {
            if is_static && range(x).is_none() {
                *scale = ActivationScale::NAN;
            }
            let scale = *scale;
            if scale.scale.is_nan() {
                return;
            }
            match self.grid {
                ActivationGrid::Int8 { .. } => codes.iter_mut().zip(x).for_each(|(code, &x)| *code = scale.int8(x)),
                ActivationGrid::E4M3 => codes.iter_mut().zip(x).for_each(|(code, &x)| *code = scale.e4m3(x) as i8),
            }
        };
        match x.len() {
            ..PARALLEL => x.chunks_exact(columns).zip(codes.chunks_exact_mut(columns)).zip(scales).for_each(encode),
            _ => x
                .par_chunks_exact(columns)
                .zip(codes.par_chunks_exact_mut(columns))
                .zip(scales.par_iter_mut())
                .for_each(encode),
        }
        Ok(())
    }

    /// Rounds `x`, `[rows, columns]`, in place, to the values that the codes stand for.
    ///
    /// # Errors
    /// [`ActivationError`] if the values are no whole rows.
    pub fn round(&self, x: &mut [f32], columns: usize) -> Result<(), ActivationError> {
        let scales = self.scales(x, columns)?;
        let round = |(x, scale): (&mut [f32], ActivationScale)| match scale.scale.is_nan() {
            true => x.fill(f32::NAN),
            false => x.iter_mut().for_each(|x| *x = scale.round(self.grid, *x)),
        };
        match x.len() {
            ..PARALLEL => x.chunks_exact_mut(columns).zip(scales).for_each(round),
            _ => x.par_chunks_exact_mut(columns).zip(scales).for_each(round),
        }
        Ok(())
    }
}

/// The least and the largest value; `None` if some are not finite.
fn range(x: &[f32]) -> Option<(f32, f32)> {
    const WIDE: usize = 16;
    let (mut low, mut high, mut magnitude) = ([0.0f32; WIDE], [0.0f32; WIDE], [0u32; WIDE]);
    let (chunks, rest) = x.as_chunks::<WIDE>();
    let mut last = [0.0; WIDE];
    last.iter_mut().zip(rest).for_each(|(last, &x)| *last = x);
    for chunk in chunks.iter().chain([&last]) {
        for lane in 0..WIDE {
            let x = chunk[lane];
            low[lane] = if x < low[lane] { x } else { low[lane] };
            high[lane] = if x > high[lane] { x } else { high[lane] };
            // NaN and infinity are the largest as bits.
            magnitude[lane] = magnitude[lane].max(x.to_bits() & 0x7fff_ffff);
        }
    }
    let finite = magnitude.iter().all(|&bits| f32::from_bits(bits).is_finite());
    finite.then(|| (low.iter().copied().fold(0.0, f32::min), high.iter().copied().fold(0.0, f32::max)))
}
