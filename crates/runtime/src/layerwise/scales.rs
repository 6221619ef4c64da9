//! AWQ's scales of a layer, found on what its linears read in full precision.

use super::block_loss::BlockJudge;
use super::gptq_judge;
use super::layer::of_site;
use super::observe::{Split, layer_sites};
use super::plan::{LayerwisePlan, Module, Modules, awq_options};
use crate::checkpoint::hf_name;
use crate::fold::{Folds, divide_stored};
use crate::hf_writer::OwnedTensor;
use crate::model::{LayerWalk, LinearSite};
use crate::{Error, Result};
use awq::{AwqError, Inputs, Member, ScaleGroup, Scales};
use gguf_format::GgmlType;
use safetensors::Dtype;
use std::collections::{BTreeMap, HashMap};

/// The inputs of a layer, ready for searching.
pub(super) type SiteInputs = BTreeMap<LinearSite, Inputs>;

/// What the search found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) folds: Folds,
    /// Norms with their scales folded in, as the directory stores them.
    pub(super) norms: Vec<OwnedTensor>,
}

pub(super) fn prepare(splits: &BTreeMap<LinearSite, Split>) -> Result<SiteInputs> {
    let inputs = splits.iter().map(|(site, split)| {
        let inputs = Inputs::new(&split.fit, split.check.as_ref()).map_err(|e| failed(&format!("{site:?}"), e))?;
        Ok((*site, inputs))
    });
    inputs.collect()
}

/// Better judges of scales than the loss of plain rounding.
#[derive(Clone, Copy, Default)]
pub(super) struct Judges<'a> {
    /// Hidden states where the layer begins: q/k/v and gate/up are judged by their block's output on them.
    pub(super) samples: &'a [Vec<f32>],
    /// GPTQ, where that rounds afterwards, and what it would see.
    pub(super) gptq: Option<(&'a LayerwisePlan, &'a BTreeMap<LinearSite, Split>)>,
}

/// The scales of a layer's inputs. `walk` has nothing folded in.
///
/// An input whose linears, or the linear that produces it, are not all quantized keeps its scale: full precision needs none.
pub(super) fn search(
    walk: &LayerWalk<'_>,
    modules: &Modules,
    l: usize,
    inputs: &SiteInputs,
    options: &awq::Options,
    judges: Judges<'_>,
) -> Result<Found> {
    let mut found = Found::default();
    let block = match judges.samples {
        [] => None,
        samples => Some(BlockJudge::new(walk, l, samples)?),
    };
    let config = walk.config();
    for site in layer_sites(l) {
        let readers = of_site(modules, site);
        let Some(input) = inputs.get(&site) else { continue };
        let Some(spec) = readers.first().and_then(|m| m.spec.as_ref()) else { continue };
        if readers.iter().any(|m| m.spec.is_none()) || producer(modules, site).is_some_and(|m| m.spec.is_none()) {
            continue;
        }
        let weights: Vec<Vec<f32>> =
            readers.iter().map(|m| divided_weights(walk, m, &found.folds)).collect::<Result<_>>()?;
        let members: Vec<Member<'_>> =
            weights.iter().zip(readers).map(|(w, m)| Member { weights: w, out_features: m.rows }).collect();
        let ties = match site {
            LinearSite::AttentionOutput(_) => {
                Some(awq::grouped_query_ties(config.num_heads, config.num_kv_heads, config.head_dim))
            }
            _ => None,
        };
        let group = ScaleGroup { members: &members, ties: ties.as_deref() };
        let name = readers.first().map_or("", |m| m.name.as_str());
        let of_site = awq_options(options, spec);
        let block = block.as_ref().filter(|_| BlockJudge::judges(site));
        let gptq = judges.gptq.and_then(|(plan, splits)| Some((plan, splits.get(&site)?)));
        let scales = if block.is_none() && gptq.is_none() {
            awq::search_scales(input, &group, &of_site).map_err(|e| failed(name, e))?
        } else {
            let ranked = awq::rank_scales(input, &group, &of_site).map_err(|e| failed(name, e))?;
            let members: Vec<(&Module, &[f32])> = readers.iter().zip(weights.iter().map(Vec::as_slice)).collect();
            match (block, gptq) {
                (Some(block), _) => best_of_block(block, site, &members, ranked, &of_site)?,
                (None, Some((rounding, split))) => gptq_judge::best(split, rounding, &members, ranked, of_site.margin)?,
                (None, None) => Scales::identity(input.in_features()),
            }
        };
        if scales.is_identity() {
            continue;
        }
        let mut values = scales.values;
        if let Some(norm) = norm_of(site) {
            found.norms.push(divided_norm(walk, &norm, &mut values)?);
        }
        found.folds.insert(config, site, values)?;
    }
    Ok(found)
}

/// The scales under which the block errs least, if that is less than plain rounding's error by the margin; else none.
fn best_of_block(
    judge: &BlockJudge<'_>,
    site: LinearSite,
    members: &[(&Module, &[f32])],
    ranked: Vec<Scales>,
    options: &awq::Options,
) -> Result<Scales> {
    let columns = members.first().map_or(0, |(module, _)| module.cols);
    let ranked: Vec<Scales> = ranked.into_iter().filter(|scales| scales.declined.is_none()).collect();
    let values: Vec<&[f32]> = ranked.iter().map(|scales| scales.values.as_slice()).collect();
    let losses = judge.losses(site, members, &values, options)?;
    let Some((plain, losses)) = losses.split_first() else { return Ok(Scales::identity(columns)) };
    let best = ranked.into_iter().zip(losses).min_by(|(_, a), (_, b)| a.total_cmp(b));
    Ok(match best {
        Some((scales, loss)) if *loss < plain * (1.0 - options.margin) => scales,
        _ => Scales::identity(columns),
    })
}

/// A module's weights, rows divided by the scales of what they produce.
pub(super) fn divided_weights(walk: &LayerWalk<'_>, module: &Module, folds: &Folds) -> Result<Vec<f32>> {
    let mut weights = walk.weight(&module.gguf_name, module.rows, module.cols)?;
    if let Some(mut fold) = folds.of_tensor(&module.gguf_name) {
        fold.columns = None;
        fold.apply(0, module.cols, &mut weights);
    }
    Ok(weights)
}

/// Biases that scales are folded into, by module. `walk` has nothing folded in.
pub(super) fn folded_biases(
    walk: &LayerWalk<'_>,
    modules: &Modules,
    l: usize,
    folds: &Folds,
) -> Result<HashMap<String, Vec<f32>>> {
    let mut biases = HashMap::new();
    for site in layer_sites(l) {
        let Some(module) = producer(modules, site).filter(|_| folds.scales(site).is_some()) else { continue };
        let name = module.gguf_name.trim_end_matches("weight").to_owned() + "bias";
        if let Some(mut bias) = walk.optional_vector(&name, module.rows)? {
            if let Some(fold) = folds.of_tensor(&name) {
                fold.apply(0, 1, &mut bias);
            }
            biases.insert(module.name.clone(), bias);
        }
    }
    Ok(biases)
}

/// The linear whose output is the input, where it is one.
fn producer(modules: &Modules, site: LinearSite) -> Option<&Module> {
    let (from, part) = match site {
        LinearSite::AttentionOutput(l) => (LinearSite::AttentionInput(l), "attn_v"),
        LinearSite::FfnDown(l) => (LinearSite::FfnInput(l), "ffn_up"),
        _ => return None,
    };
    of_site(modules, from).iter().find(|m| m.gguf_name.contains(part))
}

/// The norm whose output is the input, where it is one.
fn norm_of(site: LinearSite) -> Option<String> {
    match site {
        LinearSite::AttentionInput(l) => Some(format!("blk.{l}.attn_norm.weight")),
        LinearSite::FfnInput(l) => Some(format!("blk.{l}.ffn_norm.weight")),
        _ => None,
    }
}

/// The norm divided by the scales, as its file stores it; the scales become what that amounts to.
fn divided_norm(walk: &LayerWalk<'_>, gguf_name: &str, scales: &mut [f32]) -> Result<OwnedTensor> {
    let weight = walk.optional_vector(gguf_name, scales.len())?.unwrap_or_default();
    let name = hf_name(gguf_name).unwrap_or_default();
    // Other types are no norms that can be loaded.
    let dtype = match walk.stored_type(gguf_name)? {
        Some(GgmlType::F16) => Dtype::F16,
        Some(GgmlType::BF16) => Dtype::BF16,
        _ => Dtype::F32,
    };
    let data = divide_stored(dtype, &weight, scales).unwrap_or_default();
    Ok(OwnedTensor { name, dtype, shape: vec![weight.len()], data })
}

pub(super) fn failed(module: &str, error: AwqError) -> Error {
    match error {
        AwqError::NonFiniteWeight { row, column, .. } => {
            Error::NotFinite(format!("weights of `{module}` (row {row}, column {column})"))
        }
        e => Error::Usage(format!("module `{module}`: {e}")),
    }
}
