//! Which readers take a checkpoint, and how: known from its config and shapes alone.
//!
//! Facts: vLLM's `awq.py`, `awq_marlin.py` and `utils/marlin_utils.py` (of 2026); GPTQModel 7.7's `nn_modules/qlinear/*awq.py`; transformers 5.24's
//! `quantizers/quantizer_awq.py` and `quantizers_utils.py`, which loads AWQ through GPTQModel alone.

use super::{AwqConfig, Layout, LoadsIn, Verdict};
use quant_core::checkpoint::{by_joined_name, joined_name};

/// One quantized module, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFacts {
    /// Its name: `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Output features.
    pub out_features: usize,
    /// Input features.
    pub in_features: usize,
}

/// Which readers take a checkpoint of this config, these quantized modules and these modules in full precision (linear layers of the decoder; names
/// without `.weight`).
pub fn loads_in(config: &AwqConfig, modules: &[ModuleFacts], dense: &[&str]) -> LoadsIn {
    LoadsIn { transformers: gptqmodel(config, modules, dense), vllm: vllm(config, modules, dense) }
}

fn refuses(why: String) -> Verdict {
    Verdict::Refuses { why }
}

fn gptqmodel(config: &AwqConfig, modules: &[ModuleFacts], dense: &[&str]) -> Verdict {
    let groups: &[usize] = if config.layout == Layout::Gemv { &[64, 128] } else { &[16, 32, 64, 128] };
    if let Some(g) = config.group_size
        && !groups.contains(&g)
    {
        return refuses(format!("groups of {g}; {groups:?} and -1 are taken in layout {}", config.layout.name()));
    }
    let multiple = if config.layout == Layout::Gemv { 64 } else { 8 };
    for m in modules {
        if !m.out_features.is_multiple_of(multiple) {
            let (name, out) = (&m.name, m.out_features);
            return refuses(format!("{name}: {out} output features, not a multiple of {multiple}"));
        }
        if let Some(g) = config.group_size
            && !m.in_features.is_multiple_of(g)
        {
            return refuses(format!("{}: {} input features are not whole groups", m.name, m.in_features));
        }
    }
    // It makes a quantized layer of each linear of the decoder that the list does not leave out: names, prefixes of them, or their ends.
    let listed = |name: &str| {
        let mut list = config.modules_to_not_convert.iter();
        list.any(|part| name.ends_with(part) || name.strip_prefix(part.as_str()).is_some_and(|r| r.starts_with('.')))
    };
    if let Some(name) = dense.iter().find(|name| !listed(name)) {
        return refuses(format!("{name} is in full precision, which `modules_to_not_convert` does not say"));
    }
    let unruled = dense.iter().find(|name| !config.skip_rules.iter().any(|rule| rule.matches(name)));
    let how = match (config.layout, config.bits.get()) {
        (Layout::Gemm, _) if unruled.is_some() => {
            let name = unruled.copied().unwrap_or_default();
            let how = format!("but GPTQModel itself reads {name} wrongly, which no rule of `dynamic` leaves out");
            return Verdict::Loads { how };
        }
        (Layout::Gemm, 4) => "any of its kernels",
        (Layout::Gemm, _) => "its torch kernel; other readers have 4 bits alone",
        _ => "on CUDA alone",
    };
    Verdict::Loads { how: how.into() }
}

fn vllm(config: &AwqConfig, modules: &[ModuleFacts], dense: &[&str]) -> Verdict {
    if config.layout != Layout::Gemm {
        return refuses(format!("layout {}; it reads gemm", config.layout.name()));
    }
    if config.bits.get() != 4 {
        return refuses(format!("{} bits; it reads 4", config.bits));
    }
    let skipped = |name: &str| config.modules_to_not_convert.iter().any(|part| name.contains(part.as_str()));
    // An empty list is made up from the types in the file.
    if !config.modules_to_not_convert.is_empty()
        && let Some(name) = dense.iter().find(|name| !skipped(name))
    {
        return refuses(format!("{name} is in full precision, which `modules_to_not_convert` does not say"));
    }
    let marlin_group = matches!(config.group_size, None | Some(32 | 64 | 128));
    let marlin = config.zero_point && marlin_group;
    let (mut plain, mut why_plain) = (0usize, String::new());
    let joined = by_joined_name(modules, |m| &m.name);
    for (name, parts) in &joined {
        let Some(first) = parts.first() else { continue };
        if let Some(other) = dense.iter().find(|d| joined_name(d) == *name) {
            return refuses(format!("{name}: {other} is in full precision, {} is not", first.name));
        }
        let in_features = first.in_features;
        let out_features: usize = parts.iter().map(|p| p.out_features).sum();
        if config.group_size.is_some_and(|g| !in_features.is_multiple_of(g)) {
            return refuses(format!("{name}: {in_features} input features are not whole groups"));
        }
        if marlin && out_features.is_multiple_of(64) && in_features.is_multiple_of(128) {
            continue;
        }
        if config.group_size.is_none() {
            return refuses(format!("{name} is {out_features} x {in_features}: its plain kernel has no groups of -1"));
        }
        plain += 1;
        if why_plain.is_empty() {
            why_plain = format!("{name} is {out_features} x {in_features}, Marlin takes multiples of 64 x 128");
        }
    }
    let how = if plain == 0 {
        "Marlin".to_owned()
    } else if !marlin {
        let why = if config.zero_point { "groups of 32, 64, 128, -1" } else { "`zero_point` true" };
        format!("its plain AWQ kernel (slower, float16 only; Marlin takes {why})")
    } else {
        let fast = joined.len() - plain;
        format!(
            "Marlin for {fast} of {} matrices, the plain kernel (float16 only) for the others: {why_plain}",
            joined.len()
        )
    };
    Verdict::Loads { how }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quant_core::affine::Bits;

    fn layer() -> Vec<ModuleFacts> {
        let shapes = [
            ("self_attn.q_proj", 256, 256),
            ("self_attn.k_proj", 96, 256),
            ("self_attn.v_proj", 96, 256),
            ("self_attn.o_proj", 256, 256),
            ("mlp.gate_proj", 768, 256),
            ("mlp.up_proj", 768, 256),
            ("mlp.down_proj", 256, 768),
        ];
        let facts = |&(name, out_features, in_features): &(&str, usize, usize)| ModuleFacts {
            name: format!("model.layers.0.{name}"),
            out_features,
            in_features,
        };
        shapes.iter().map(facts).collect()
    }

    const Q: &str = "model.layers.0.self_attn.q_proj";
    const DOWN: &str = "model.layers.0.mlp.down_proj";

    #[test]
    fn by_config_and_shape() {
        let new = |bits, group, zero| AwqConfig::new(Bits::new(bits).unwrap(), group, zero);
        let skip = |c: AwqConfig, m: &str| {
            AwqConfig::from_json(&AwqConfig { modules_to_not_convert: vec![m.into()], ..c }.to_json("a")).unwrap()
        };
        let listed = |c: AwqConfig, m: &str| AwqConfig { modules_to_not_convert: vec![m.into()], ..c };
        let four = || new(4, Some(128), true);
        let cases: Vec<(AwqConfig, fn(&mut Vec<ModuleFacts>), &[&str], &str, &str)> = vec![
            // Joined, 256 + 96 + 96 features are 448, a multiple of 64.
            (four(), |_| {}, &[], "yes: any", "yes: Marlin"),
            (new(4, None, true), |_| {}, &[], "yes", "yes: Marlin"),
            (
                new(4, Some(128), false),
                |_| {},
                &[],
                "yes",
                "yes: its plain AWQ kernel (slower, float16 only; Marlin takes `zero_point`",
            ),
            (new(4, Some(16), true), |_| {}, &[], "yes", "Marlin takes groups of 32"),
            (new(4, Some(256), true), |_| {}, &[], "no: groups of 256", "yes: its plain"),
            (new(4, Some(96), true), |_| {}, &[], "no: groups of 96", "no: model.layers.0.mlp.gate_up_proj: 256 input"),
            (new(8, Some(64), true), |_| {}, &[], "yes: its torch", "no: 8 bits"),
            (AwqConfig { layout: Layout::Gemv, ..four() }, |m| m.truncate(1), &[], "yes: on CUDA", "no: layout gemv"),
            (
                AwqConfig { layout: Layout::Gemv, ..four() },
                |_| {},
                &[],
                "no: model.layers.0.self_attn.k_proj: 96",
                "no",
            ),
            (four(), |m| m[6].out_features = 32, &[], "yes", "yes: Marlin for 3 of 4 matrices, the plain kernel"),
            (four(), |m| m[6].out_features = 12, &[], "no: model.layers.0.mlp.down_proj: 12 output", "yes"),
            (
                new(4, None, true),
                |m| m[6].out_features = 32,
                &[],
                "yes",
                "no: model.layers.0.mlp.down_proj is 32 x 768",
            ),
            (four(), |m| m.truncate(6), &[DOWN], "no: model.layers.0.mlp.down_proj is in full", "yes: Marlin"),
            (skip(four(), DOWN), |m| m.truncate(6), &[DOWN], "yes: any", "yes: Marlin"),
            (listed(four(), DOWN), |m| m.truncate(6), &[DOWN], "yes: but GPTQModel", "yes: Marlin"),
            (skip(four(), "lm_head"), |m| m.truncate(6), &[DOWN], "no", "no: model.layers.0.mlp.down_proj is in full"),
            (
                skip(four(), Q),
                |m| drop(m.remove(0)),
                &[Q],
                "yes",
                "no: model.layers.0.self_attn.qkv_proj: model.layers.0.self_attn.q_proj",
            ),
        ];
        for (config, change, dense, transformers, vllm) in cases {
            let mut modules = layer();
            change(&mut modules);
            let verdicts = loads_in(&config, &modules, dense);
            let (t, v) = (verdicts.transformers.to_string(), verdicts.vllm.to_string());
            assert!(t.starts_with(transformers) && (v.starts_with(vllm) || v.contains(vllm)), "{config:?}: {t}; {v}");
        }
    }
}
