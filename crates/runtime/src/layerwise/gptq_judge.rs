//! Scales judged by what GPTQ leaves of them.
//!
//! Error feedback makes good much of what scales save of plain rounding's loss, and not the same part of it everywhere. So where GPTQ rounds
//! afterwards, a few rows of each matrix are rounded by it, with each scale and with none, on the sequences to fit to, and compared on those kept back.

use super::observe::Split;
use super::plan::{LayerwisePlan, Module};
use super::round_gptq::Solver;
use crate::{Error, Result};
use awq::{Losses, Scales};

/// Rows of each matrix that are rounded.
const ROWS: usize = 256;

/// The scales whose least profiting matrix profits most, if every matrix saves `margin` of its loss; else none. `members` are the linears that read the
/// input, with their weights.
pub(super) fn best(
    split: &Split,
    plan: &LayerwisePlan,
    members: &[(&Module, &[f32])],
    ranked: Vec<Scales>,
    margin: f64,
) -> Result<Scales> {
    let columns = split.fit.columns();
    let plain = losses(split, plan, members, &vec![1.0; columns])?;
    let mut best = (1.0 - margin, Scales::identity(columns));
    for scales in ranked.into_iter().filter(|scales| scales.declined.is_none()) {
        let scaled = losses(split, plan, members, &scales.values)?;
        let worst = Losses::of(&plain, &scaled).worst;
        if worst < best.0 {
            best = (worst, scales);
        }
    }
    Ok(best.1)
}

/// The loss of each matrix's sampled rows on the sequences kept back (on those to fit to where there are no others).
fn losses(split: &Split, plan: &LayerwisePlan, members: &[(&Module, &[f32])], scales: &[f32]) -> Result<Vec<f64>> {
    let failed = |e: &dyn std::fmt::Display| Error::Usage(format!("scales before GPTQ: {e}"));
    let columns = scales.len();
    let stats = split.fit.divided_by(scales).map_err(|e| failed(&e))?;
    let check = split.check.as_ref().unwrap_or(&split.fit);
    let mut solver = Solver::new(plan, Some(&stats), None);
    let of_member = |(module, weights): &(&Module, &[f32])| {
        let Some((spec, gram)) = module.spec.as_ref().zip(check.gram()) else { return Ok(0.0) };
        let step = module.rows.div_ceil(ROWS).max(1);
        let rows: Vec<f32> = weights.chunks_exact(columns.max(1)).step_by(step).flatten().copied().collect();
        let scaled: Vec<f32> = rows.iter().zip(scales.iter().cycle()).map(|(w, s)| w * s).collect();
        let sampled = Module { rows: rows.len() / columns.max(1), ..(*module).clone() };
        let (matrix, _) = solver.round(&sampled, spec, &scaled)?;
        let mut rounded = Vec::new();
        super::sequential::push_dequantized(&mut rounded, &matrix)?;
        rounded.iter_mut().zip(scales.iter().cycle()).for_each(|(v, s)| *v /= s);
        gptq::loss(&rows, &rounded, gram, check.count()).map_err(|e| failed(&e))
    };
    members.iter().map(of_member).collect()
}
