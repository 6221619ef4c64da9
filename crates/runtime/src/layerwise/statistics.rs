//! Statistics of an input, with rows that would outweigh all others shortened.

use super::plan::Module;
use crate::{Error, Result};
use quant_core::input_stats::{Detail, InputStats};

/// Statistics with a Gram matrix, of no rows, for the input of `modules`.
pub(super) fn empty(modules: &[Module]) -> InputStats {
    InputStats::new(modules.first().map_or(0, |m| m.cols), Detail::Gram)
}

/// Adds a sequence's rows.
///
/// # Errors
/// [`Error::NotFinite`], naming the modules that read them.
pub(super) fn add(stats: &mut InputStats, modules: &[Module], row_limit: Option<f32>, x: &[f32]) -> Result<()> {
    add_named(stats, &|| modules.iter().map(|m| m.name.clone()).collect(), row_limit, x)
}

/// As [`add`]; `names` are of what reads them.
pub(super) fn add_named(
    stats: &mut InputStats,
    names: &dyn Fn() -> Vec<String>,
    row_limit: Option<f32>,
    x: &[f32],
) -> Result<()> {
    let columns = stats.columns();
    let limited = row_limit.and_then(|limit| limit_rows(x, columns, limit));
    let x = limited.as_deref().unwrap_or(x);
    stats
        .add(x, x.len() / columns.max(1), columns)
        .map_err(|e| Error::NotFinite(format!("inputs of {} ({e})", names().join(", "))))
}

/// The rows, those longer than `limit` medians of the squared norms shortened to that; `None` if none is.
fn limit_rows(x: &[f32], columns: usize, limit: f32) -> Option<Vec<f32>> {
    let norms: Vec<f64> =
        x.chunks_exact(columns.max(1)).map(|row| row.iter().map(|&v| f64::from(v) * f64::from(v)).sum()).collect();
    let mut sorted = norms.clone();
    sorted.sort_by(f64::total_cmp);
    let most = f64::from(limit) * sorted.get(sorted.len() / 2)?;
    // Not-a-number is left for the statistics to name.
    if !most.is_finite() || most <= 0.0 || !norms.iter().any(|&n| n > most && n.is_finite()) {
        return None;
    }
    let mut limited = x.to_vec();
    for (row, norm) in limited.chunks_exact_mut(columns.max(1)).zip(norms) {
        if norm > most && norm.is_finite() {
            let factor = (most / norm).sqrt() as f32;
            row.iter_mut().for_each(|v| *v *= factor);
        }
    }
    Some(limited)
}

#[cfg(test)]
mod tests {
    use super::limit_rows;

    #[test]
    fn long_rows_are_shortened() {
        let x = [1.0, 0.0, 0.0, 1.0, 0.0, 8.0];
        assert_eq!(limit_rows(&x, 2, 4.0).unwrap(), [1.0, 0.0, 0.0, 1.0, 0.0, 2.0]);
        assert_eq!(limit_rows(&x, 2, 1e4), None);
        assert_eq!(limit_rows(&[0.0; 4], 2, 4.0), None);
        assert_eq!(limit_rows(&[f32::NAN, 0.0, 1.0, 1.0], 2, 4.0), None);
        assert_eq!(limit_rows(&[], 2, 4.0), None);
    }
}
