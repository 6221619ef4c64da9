//! The rule as a table: a role, file types, conditions, and the type they lead to.
//!
//! Facts from `llama_tensor_get_type_impl` in src/llama-quant.cpp (llama.cpp 0c1e57098).

use super::{FileType, ModelFacts, Role};
use crate::GgmlType;
use When::*;

/// A condition on the model or on the place of the tensor in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// The first `n` such tensors met.
    First(usize),
    /// The first 1/n of the layers (integer division).
    FirstPart(usize),
    /// The first eighth, the last eighth, and every third layer between: where more bits pay most.
    MoreBits,
    /// All but the first and last eighth of the layers.
    Middle,
    /// At least four query heads share a key/value head.
    Gqa4,
    /// At least four experts.
    Experts4,
    /// Exactly eight experts (Mixtral).
    Experts8,
    /// Any other number of experts.
    NotExperts8,
    /// An importance matrix is given.
    Importance,
    /// None is.
    NoImportance,
    /// The architecture is Falcon.
    Falcon,
    /// It is not.
    NotFalcon,
    /// The model counts as a 70B: one v tensor serves many heads and weighs little.
    Is70B,
    /// A row is no whole number of the default type's blocks.
    RowMisfits,
    /// A stack of expert matrices.
    ExpertStack,
}

/// One row: for these roles and file types, if all conditions hold, this type.
pub(super) struct Row {
    roles: &'static [Role],
    file_types: &'static [FileType],
    when: &'static [When],
    ty: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Type(GgmlType),
    /// The file type's default; ends the search.
    Default,
}

/// Facts about the tensor at hand that conditions ask for.
pub(super) struct Place<'a> {
    pub(super) role: Role,
    pub(super) file_type: FileType,
    pub(super) default: GgmlType,
    pub(super) model: &'a ModelFacts,
    pub(super) has_importance: bool,
    pub(super) row_len: u64,
    pub(super) matrices: u64,
    /// Index among its kind, and how many there are.
    pub(super) index: usize,
    pub(super) count: usize,
}

impl When {
    fn holds(self, p: &Place<'_>) -> bool {
        let (i, n) = (p.index, p.count);
        match self {
            First(k) => i < k,
            FirstPart(k) => i < n / k,
            MoreBits => i < n / 8 || i >= n.saturating_mul(7) / 8 || (i - n / 8) % 3 == 2,
            Middle => i >= n / 8 && i < n.saturating_mul(7) / 8,
            Gqa4 => p.model.heads_per_kv_head >= 4,
            Experts4 => p.model.expert_count >= 4,
            Experts8 => p.model.expert_count == 8,
            NotExperts8 => p.model.expert_count != 8,
            Importance => p.has_importance,
            NoImportance => !p.has_importance,
            Falcon => p.model.architecture == "falcon",
            NotFalcon => p.model.architecture != "falcon",
            Is70B => p.model.is_70b,
            RowMisfits => p.default.layout().is_some_and(|l| !p.row_len.is_multiple_of(u64::from(l.block_len))),
            ExpertStack => {
                // Latent-attention projections of this architecture are stacks too, but not of experts.
                let ffn = matches!(p.role, Role::FfnUp | Role::FfnGate | Role::FfnDown);
                p.matrices > 1 && (p.model.architecture != "bailingmoe3" || ffn)
            }
        }
    }
}

/// File types of two bits and fewer, whose rules differ from all others.
pub(super) const LOWEST: &[FileType] =
    &[FileType::IQ1_S, FileType::IQ1_M, FileType::IQ2_XXS, FileType::IQ2_XS, FileType::IQ2_S, FileType::IQ2_M];

/// File types whose attn_output gets Q5_K when there are eight experts.
const EIGHT_EXPERTS_OUTPUT: &[FileType] = &[
    FileType::Q2_K,
    FileType::Q3_K_S,
    FileType::Q3_K_M,
    FileType::Q4_K_S,
    FileType::Q4_K_M,
    FileType::IQ3_XXS,
    FileType::IQ3_XS,
    FileType::IQ3_S,
    FileType::IQ3_M,
    FileType::IQ4_NL,
    FileType::IQ4_XS,
];

/// An empty list of file types means all of them.
const ALL: &[FileType] = &[];

macro_rules! rows {
    ($($($role:ident)|+, $files:tt, [$($when:expr),*] => $ty:ident;)*) => {
        &[$(Row { roles: &[$(Role::$role),+], file_types: rows!(@files $files), when: &[$($when),*], ty: rows!(@ty $ty) }),*]
    };
    (@files ALL) => { ALL };
    (@files LOWEST) => { LOWEST };
    (@files EIGHT_EXPERTS_OUTPUT) => { EIGHT_EXPERTS_OUTPUT };
    (@files [$($file:ident)*]) => { &[$(FileType::$file),*] };
    (@ty Default) => { Outcome::Default };
    (@ty $ty:ident) => { Outcome::Type(GgmlType::$ty) };
}

/// The rule. First row that applies wins; no row: the file type's default.
/// A model without `output.weight` uses `token_embd.weight` as its head, which then goes by the rows of `Output`.
#[rustfmt::skip]
const RULE: &[Row] = rows! {
    // The head decides every token: it keeps more bits than the rest.
    Output, [MXFP4_MOE], []                                        => Q8_0;
    Output, ALL,         [Falcon]                                  => Q8_0;
    Output, ALL,         [RowMisfits]                              => Q8_0;
    Output, LOWEST,      []                                        => Q5_K;
    Output, [IQ3_XXS],   []                                        => Q5_K;
    Output, [Q8_0],      []                                        => Default;
    Output, ALL,         []                                        => Q6_K;

    // MXFP4 is for experts only.
    TokenEmbedding | AttentionQ | AttentionK | AttentionV | AttentionOutput | FfnUp | FfnGate | FfnDown | Other,
        [MXFP4_MOE], [ExpertStack] => MXFP4;
    TokenEmbedding | AttentionQ | AttentionK | AttentionV | AttentionOutput | FfnUp | FfnGate | FfnDown | Other,
        [MXFP4_MOE], []            => Q8_0;

    TokenEmbedding, [IQ1_S IQ1_M IQ2_XXS IQ2_XS], []               => Q2_K;
    TokenEmbedding, [IQ2_S IQ2_M IQ3_XXS], []                      => IQ3_S;
    TokenEmbedding, [TQ1_0 TQ2_0 Q2_0],    []                      => Q4_K;

    // Two bits and fewer.
    AttentionV, LOWEST,          [Gqa4]                            => Q4_K;
    AttentionV, LOWEST,          [Experts4]                        => Q4_K;
    AttentionV, [IQ2_S IQ2_M],   []                                => IQ3_S;
    AttentionV, LOWEST,          []                                => Q2_K;
    AttentionK, LOWEST,          [Experts8]                        => Q4_K;
    FfnDown,    [IQ2_S IQ2_M],   [FirstPart(8)]                    => IQ3_S;
    FfnDown,    LOWEST,          [FirstPart(8)]                    => Q2_K;
    AttentionOutput, LOWEST,        [Experts8]                     => Q5_K;
    AttentionOutput, [IQ1_S IQ1_M], []                             => IQ2_XXS;
    AttentionOutput, [IQ2_S IQ2_M], []                             => IQ3_S;

    // v (and the fused qkv): small where heads share it, and the most sensitive. With eight experts, or in a 70B, it is smaller still.
    AttentionV, ALL,             [Experts8]                        => Q8_0;
    AttentionV, [Q2_K Q2_K_S],   [Gqa4, Is70B]                     => Q5_K;
    AttentionV, [Q2_K Q2_K_S],   [Gqa4]                            => Q4_K;
    AttentionV, [Q2_K],          [Is70B]                           => Q5_K;
    AttentionV, [Q2_K],          []                                => Q3_K;
    AttentionV, [IQ3_XXS IQ3_XS IQ3_S], [Gqa4, Is70B]              => Q5_K;
    AttentionV, [IQ3_XXS IQ3_XS IQ3_S], [Gqa4]                     => Q4_K;
    AttentionV, [IQ3_XXS],       [NoImportance]                    => IQ3_S;
    AttentionV, [IQ3_M],         [Is70B]                           => Q5_K;
    AttentionV, [IQ3_M],         []                                => Q4_K;
    AttentionV, [Q3_K_M],        [First(2)]                        => Q5_K;
    AttentionV, [Q3_K_M],        [Is70B]                           => Q5_K;
    AttentionV, [Q3_K_M],        []                                => Q4_K;
    AttentionV, [Q3_K_L],        []                                => Q5_K;
    AttentionV, [IQ4_NL IQ4_XS], [Gqa4]                            => Q5_K;
    AttentionV, [Q4_K_M Q5_K_M], [MoreBits]                        => Q6_K;
    AttentionV, [Q4_K_S],        [First(4)]                        => Q5_K;
    AttentionV, [Q3_K_S Q4_K_S Q4_K_M], [Is70B]                    => Q5_K;

    AttentionK, ALL,             [Experts8]                        => Q8_0;
    AttentionK | AttentionQ, [IQ3_XS],  []                         => IQ3_XXS;
    AttentionK | AttentionQ, [IQ3_XXS], []                         => IQ2_S;

    FfnDown, [Q2_K],             []                                => Q3_K;
    FfnDown, [Q2_K_S],           [FirstPart(8)]                    => Q4_K;
    FfnDown, [IQ3_XXS],          [NoImportance, FirstPart(8)]      => Q4_K;
    FfnDown, [IQ3_XXS],          [NoImportance]                    => Q3_K;
    FfnDown, [IQ3_M],            [FirstPart(8)]                    => Q4_K;
    FfnDown, [IQ3_M],            [Experts8, MoreBits]              => Q4_K;
    FfnDown, [Q3_K_M],           [FirstPart(16)]                   => Q5_K;
    FfnDown, [Q3_K_M],           [NotFalcon]                       => Q4_K;
    FfnDown, [Q3_K_M],           [MoreBits]                        => Q4_K;
    FfnDown, [Q3_K_L],           [Falcon]                          => Q4_K;
    FfnDown, [Q3_K_L],           []                                => Q5_K;
    FfnDown, [Q4_K_M],           [Falcon, FirstPart(16)]           => Q6_K;
    FfnDown, [Q4_K_M],           [Falcon, MoreBits]                => Q5_K;
    FfnDown, [Q4_K_M],           [NotFalcon, MoreBits]             => Q6_K;
    FfnDown, [Q5_K_M],           [MoreBits]                        => Q6_K;
    FfnDown, [Q4_K_S],           [NotFalcon, FirstPart(8)]         => Q5_K;
    FfnDown, [IQ4_NL IQ4_XS],    [NoImportance, FirstPart(8)]      => Q5_K;
    FfnDown, [Q4_0],             [Importance, FirstPart(8)]        => Q4_1;
    FfnDown, [Q5_0],             [Importance, FirstPart(8)]        => Q5_1;

    AttentionOutput, EIGHT_EXPERTS_OUTPUT, [NotFalcon, Experts8]   => Q5_K;
    AttentionOutput, [Q2_K],     [NotFalcon, NotExperts8]          => Q3_K;
    AttentionOutput, [IQ3_XXS],  [NotFalcon, NotExperts8]          => IQ3_S;
    AttentionOutput, [Q3_K_M],   [NotFalcon, NotExperts8]          => Q4_K;
    AttentionOutput, [Q3_K_L],   [NotFalcon, NotExperts8]          => Q5_K;
    AttentionOutput, [IQ3_M],    [NotFalcon, NotExperts8]          => Q4_K;
    AttentionOutput, [Q3_K_L],   [Falcon]                          => Q4_K;

    FfnGate | FfnUp, [IQ3_XS],   [Middle]                          => IQ3_XXS;
};

/// The type the rule gives, before the shape is checked.
pub(super) fn apply(place: &Place<'_>) -> GgmlType {
    let row = RULE.iter().find(|row| {
        row.roles.contains(&place.role)
            && (row.file_types.is_empty() || row.file_types.contains(&place.file_type))
            && row.when.iter().all(|w| w.holds(place))
    });
    match row.map(|r| r.ty) {
        Some(Outcome::Type(ty)) => ty,
        Some(Outcome::Default) | None => place.default,
    }
}

/// Where a row is no whole number of `ty`'s blocks, the type of smaller blocks that stands in for it (`tensor_type_fallback`);
/// F16 where no block fits. `None`: nothing stands in for this type.
pub(super) fn fallback(ty: GgmlType, row_len: u64) -> Option<GgmlType> {
    let fits = |ty: GgmlType| ty.layout().is_some_and(|l| row_len.is_multiple_of(u64::from(l.block_len)));
    if fits(ty) {
        return Some(ty);
    }
    let smaller = match ty {
        GgmlType::IQ1_S
        | GgmlType::IQ1_M
        | GgmlType::IQ2_XXS
        | GgmlType::IQ2_XS
        | GgmlType::IQ2_S
        | GgmlType::IQ3_XXS
        | GgmlType::IQ3_S
        | GgmlType::IQ4_XS => GgmlType::IQ4_NL,
        GgmlType::Q2_0 | GgmlType::Q2_K | GgmlType::Q3_K | GgmlType::TQ1_0 | GgmlType::TQ2_0 => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        _ if ty.layout().is_some_and(|l| l.block_len <= 32) => ty,
        _ => return None,
    };
    Some(if fits(smaller) { smaller } else { GgmlType::F16 })
}

/// Types that turn to noise without importance weights (`tensor_requires_imatrix`). The embedding and the head are exempt.
pub(super) fn needs_importance(role: Role, ty: GgmlType, file_type: FileType) -> bool {
    if matches!(role, Role::TokenEmbedding | Role::Output) {
        return false;
    }
    match ty {
        GgmlType::IQ3_XXS
        | GgmlType::IQ2_XXS
        | GgmlType::IQ2_XS
        | GgmlType::IQ2_S
        | GgmlType::IQ1_M
        | GgmlType::IQ1_S => true,
        GgmlType::Q2_K => file_type == FileType::Q2_K_S,
        _ => false,
    }
}
