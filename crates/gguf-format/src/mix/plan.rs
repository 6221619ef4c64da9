//! From a list of tensors to a list of types, and why.

use super::role::{file_order, layer_of, may_quantize};
use super::rule::{self, Place};
use super::{FileType, ModelFacts, Role, TypeOverride};
use crate::{Error, GgmlType, Result};
use std::fmt;

/// A tensor as the rule sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorDesc<'a> {
    /// Its name in GGUF.
    pub name: &'a str,
    /// Rows first; the last dimension is contiguous.
    pub shape: &'a [u64],
    /// Its type now; a tensor that is not quantized keeps it.
    pub ty: GgmlType,
}

/// What is asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MixOptions {
    /// The mix.
    pub file_type: FileType,
    /// Importance weights are given: some rules spend fewer bits then.
    pub has_importance: bool,
    /// The first that matches a name wins over the rule. Not for targets F32, F16 and BF16, which have no rule.
    pub overrides: Vec<TypeOverride>,
    /// Type of `output.weight`, and of `token_embd.weight` where that is the head too.
    pub output_type: Option<GgmlType>,
    /// Type of `token_embd.weight` and `per_layer_token_embd.weight`.
    pub token_embedding_type: Option<GgmlType>,
    /// No rule: every tensor gets the file type's default.
    pub pure: bool,
    /// `output.weight` is copied as it is.
    pub keep_output: bool,
}

impl MixOptions {
    /// The mix as llama-quantize makes it without options.
    pub fn new(file_type: FileType) -> Self {
        Self {
            file_type,
            has_importance: false,
            overrides: Vec::new(),
            output_type: None,
            token_embedding_type: None,
            pure: false,
            keep_output: false,
        }
    }
}

/// Why a tensor has its type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is not quantized: one dimension, a norm, a router ... It keeps the type it has.
    Kept,
    /// The file type's default.
    Default,
    /// The mix's rule gives it another type than the default.
    Rule,
    /// `output_type` or `token_embedding_type`.
    Option,
    /// An override matched; its pattern.
    Override(String),
    /// Its rows do not fit the type it should have had.
    Fallback(GgmlType),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => f.write_str("kept"),
            Self::Default => f.write_str("default"),
            Self::Rule => f.write_str("rule"),
            Self::Option => f.write_str("option"),
            Self::Override(pattern) => write!(f, "override {pattern}"),
            Self::Fallback(ty) => write!(f, "fallback from {ty}"),
        }
    }
}

/// The type of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The type it gets.
    pub ty: GgmlType,
    /// Why.
    pub reason: Reason,
    /// The type is useless without importance weights for this tensor.
    pub needs_importance: bool,
}

/// Counts of tensors met so far, and of all there will be.
struct Counters {
    v: (usize, usize),
    down: (usize, usize),
    gate: (usize, usize),
    up: (usize, usize),
}

/// Chooses the type of every tensor. The answers are in the order of `tensors`, whatever that is: the rule itself counts in
/// [`file_order`].
///
/// # Errors
/// [`Error::Refused`]: an unknown file type; a type asked for by name that a tensor's rows do not fit; no stand-in for a type that does
/// not fit; an expert tensor whose name holds no layer below `block_count`.
pub fn plan(tensors: &[TensorDesc<'_>], model: &ModelFacts, options: &MixOptions) -> Result<Vec<Choice>> {
    let default = options.file_type.default_type().ok_or_else(|| Error::Refused {
        what: options.file_type.to_string(),
        reason: "no rule for this file type".to_owned(),
    })?;
    let tied = !tensors.iter().any(|t| Role::of(t.name) == Role::Output);
    let v_count = tensors.iter().filter(|t| Role::of(t.name) == Role::AttentionV).count();
    let n = model.block_count;
    let mut counters = Counters { v: (0, v_count), down: (0, n), gate: (0, n), up: (0, n) };

    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by(|&a, &b| file_order(tensors[a].name, tensors[b].name));
    let mut choices = vec![None; tensors.len()];
    for i in order {
        choices[i] = Some(choose(&tensors[i], model, options, default, tied, &mut counters)?);
    }
    Ok(choices.into_iter().flatten().collect())
}

fn choose(
    tensor: &TensorDesc<'_>,
    model: &ModelFacts,
    options: &MixOptions,
    default: GgmlType,
    tied: bool,
    counters: &mut Counters,
) -> Result<Choice> {
    let role = Role::of(tensor.name);
    let kept = !may_quantize(tensor, &model.architecture) || (options.keep_output && role == Role::Output);
    let (ty, reason) = if kept {
        (tensor.ty, Reason::Kept)
    } else if let Some(ty) = forced(tensor, role, options) {
        must_fit(tensor, ty)?;
        (ty, Reason::Option)
    } else if !default.is_quantized() {
        (default, Reason::Default)
    } else {
        let (wanted, reason) = wanted(tensor, role, model, options, default, tied, counters)?;
        let row_len = tensor.shape.last().copied().unwrap_or(1);
        let ty = rule::fallback(wanted, row_len).ok_or_else(|| misfit(tensor, wanted))?;
        (ty, if ty == wanted { reason } else { Reason::Fallback(wanted) })
    };
    let needs_importance = !kept && rule::needs_importance(role, ty, options.file_type);
    Ok(Choice { ty, reason, needs_importance })
}

/// A type that the options give by the tensor's role.
fn forced(tensor: &TensorDesc<'_>, role: Role, options: &MixOptions) -> Option<GgmlType> {
    match role {
        // The per-layer table is large and separate: an override that names it goes first.
        Role::TokenEmbedding if tensor.name == "per_layer_token_embd.weight" => {
            let named = options.overrides.iter().any(|o| o.matches(tensor.name));
            options.token_embedding_type.filter(|_| !named)
        }
        Role::TokenEmbedding => options.token_embedding_type,
        Role::Output => options.output_type,
        _ => None,
    }
}

/// Override, rule or default, before the shape is looked at.
fn wanted(
    tensor: &TensorDesc<'_>,
    role: Role,
    model: &ModelFacts,
    options: &MixOptions,
    default: GgmlType,
    tied: bool,
    counters: &mut Counters,
) -> Result<(GgmlType, Reason)> {
    if let Some(o) = options.overrides.iter().find(|o| o.matches(tensor.name)) {
        return Ok((o.ty(), Reason::Override(o.pattern().to_owned())));
    }
    if options.pure {
        return Ok((default, Reason::Default));
    }
    if model.architecture == "glm5-next"
        && ["attn_q_a", "attn_q_b", "nextn.eh_proj"].iter().any(|n| tensor.name.contains(n))
    {
        return Ok((GgmlType::Q8_0, Reason::Rule));
    }
    let is_head = role == Role::Output || (tied && role == Role::TokenEmbedding);
    if let (true, Some(ty)) = (is_head, options.output_type) {
        return Ok((ty, Reason::Option));
    }
    let (index, count) = position(tensor.name, role, model, options.file_type, counters)?;
    let ty = rule::apply(&Place {
        role: if is_head { Role::Output } else { role },
        file_type: options.file_type,
        default,
        model,
        has_importance: options.has_importance,
        row_len: tensor.shape.last().copied().unwrap_or(1),
        matrices: tensor.shape.len().checked_sub(3).map_or(1, |i| tensor.shape[i]),
        index,
        count,
    });
    Ok((ty, if ty == default { Reason::Default } else { Reason::Rule }))
}

/// Index of the tensor among its kind, and how many there are. Counts, but for the feed-forward part of a model with experts, where
/// tensors of one layer may be many and the layer is read from the name.
fn position(
    name: &str,
    role: Role,
    model: &ModelFacts,
    file_type: FileType,
    counters: &mut Counters,
) -> Result<(usize, usize)> {
    let counter = match role {
        Role::AttentionV => &mut counters.v,
        Role::FfnDown => &mut counters.down,
        Role::FfnGate => &mut counters.gate,
        Role::FfnUp => &mut counters.up,
        _ => return Ok((0, 0)),
    };
    let (met, count) = *counter;
    counter.0 += 1;
    if role == Role::AttentionV || model.expert_count <= 1 || by_count_only(file_type) {
        return Ok((met, count));
    }
    match layer_of(name).map(|l| l as usize) {
        Some(layer) if layer < count => Ok((layer, count)),
        _ => Err(Error::Refused {
            what: format!("tensor `{name}`"),
            reason: format!("a feed-forward tensor of a model with experts must name a layer below {count}"),
        }),
    }
}

/// File types whose rules never look at the layer's number.
fn by_count_only(file_type: FileType) -> bool {
    file_type == FileType::MXFP4_MOE || rule::LOWEST.contains(&file_type)
}

fn must_fit(tensor: &TensorDesc<'_>, ty: GgmlType) -> Result<()> {
    match tensor.shape.last().copied().unwrap_or(1) {
        row_len if ty.bytes_for(row_len).is_some() => Ok(()),
        _ => Err(misfit(tensor, ty)),
    }
}

fn misfit(tensor: &TensorDesc<'_>, ty: GgmlType) -> Error {
    Error::Refused {
        what: format!("tensor `{}`", tensor.name),
        reason: format!(
            "its rows of {} values are no whole number of {ty} blocks",
            tensor.shape.last().copied().unwrap_or(1)
        ),
    }
}
