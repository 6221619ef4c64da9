//! Which readers take a checkpoint, and how: known from its config and shapes alone.
//!
//! Facts: vLLM's `compressed_tensors/{utils,compressed_tensors}.py`, `schemes/compressed_tensors_wNa16.py`, `kernels/mixed_precision/{marlin,exllama}.py` and
//! `utils/{marlin,machete}_utils.py` (of 2026); transformers 5.24 with compressed-tensors 0.20, run on the directories that llm-compressor wrote.

use super::{Config, EightBitSpec, InputScales, LoadsIn, Storage, Verdict};
use quant_core::checkpoint::{by_joined_name, joined_name};
use quant_core::eight_bit::EightBitCode;

/// One quantized module, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFacts {
    /// Its name: `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Output features.
    pub out_features: usize,
    /// Input features.
    pub in_features: usize,
    /// How the config says it is stored.
    pub storage: Storage,
    /// The groups of its columns where they are not in order.
    pub g_idx: Option<Vec<u32>>,
}

/// Which readers take a checkpoint of this config, these quantized modules and these modules in full precision (linear layers of the decoder; names
/// without `.weight`).
pub fn loads_in(config: &Config, modules: &[ModuleFacts], dense: &[&str]) -> LoadsIn {
    LoadsIn { transformers: transformers(config, modules, dense), vllm: vllm(config, modules, dense) }
}

fn refuses(why: String) -> Verdict {
    Verdict::Refuses { why }
}

fn transformers(config: &Config, modules: &[ModuleFacts], dense: &[&str]) -> Verdict {
    if let Some(name) = dense.iter().find(|name| config.group(name).is_some_and(|g| g.weights.is_some())) {
        return refuses(format!("{name} is in full precision, which `ignore` does not say"));
    }
    if let Some(transform) = config.transforms.first() {
        let why = format!("the rotation {} of inputs is not done (`transform_config` is not read)", transform.name);
        return Verdict::Misreads { why };
    }
    let mut rounds = false;
    for m in modules {
        let spec = match m.storage {
            Storage::EightBit(spec) => {
                rounds |= spec.activations.is_some();
                continue;
            }
            Storage::Packed(spec) => spec,
        };
        if !spec.symmetric {
            return refuses(format!("{}: its shape of `weight_zero_point` is another than the library writes", m.name));
        }
        if m.g_idx.is_some() {
            return Verdict::Misreads { why: format!("{}: `weight_g_idx` is no longer read", m.name) };
        }
        if spec.group_size.is_some_and(|g| !m.in_features.is_multiple_of(g)) {
            return refuses(format!("{}: {} input features are not whole groups", m.name, m.in_features));
        }
    }
    let activations = if rounds { ", activations rounded as the config says" } else { "" };
    Verdict::Loads { how: format!("weights decompressed to full precision{activations}") }
}

/// vLLM's kernel for one byte a weight, or why it has none (`_get_scheme_from_parts`).
fn eight_bit_kernel(spec: &EightBitSpec) -> Result<&'static str, &'static str> {
    if !spec.symmetric {
        return Err("zero points of weights of one byte");
    }
    match (spec.code, spec.activations.map(|a| a.scales)) {
        (EightBitCode::Int8, None) => {
            Err("int8 weights with activations in full precision, which it wants pack-quantized")
        }
        (EightBitCode::Int8, Some(InputScales::Tensor)) => Err("int8 with one dynamic scale for all tokens"),
        (EightBitCode::Int8, Some(_)) => Ok("int8 products"),
        (EightBitCode::E4M3, None) => Ok("FP8 Marlin, activations in full precision"),
        (EightBitCode::E4M3, Some(_)) => {
            Ok("FP8 products from compute capability 8.9 on, below it activations in full precision")
        }
    }
}

fn vllm(config: &Config, modules: &[ModuleFacts], dense: &[&str]) -> Verdict {
    let joined = by_joined_name(modules, |m| &m.name);
    let (mut slow, mut why_slow) = (0usize, String::new());
    // Of one byte a weight: kernel and how many.
    let (mut bytes, mut kernel_of_bytes) = (0usize, "");
    for (name, parts) in &joined {
        let Some(first) = parts.first() else { continue };
        if let Some(other) = dense.iter().find(|d| joined_name(d) == *name) {
            return refuses(format!("{name}: {other} is in full precision, {} is not", first.name));
        }
        if let Some(other) = parts.iter().find(|p| p.storage != first.storage) {
            return refuses(format!("{name}: {} and {} are stored differently", first.name, other.name));
        }
        let spec = match first.storage {
            Storage::Packed(spec) => spec,
            Storage::EightBit(spec) => match eight_bit_kernel(&spec) {
                Err(why) => return refuses(format!("{name}: {why}")),
                Ok(kernel) => {
                    (bytes, kernel_of_bytes) = (bytes + 1, kernel);
                    continue;
                }
            },
        };
        if parts.iter().any(|p| p.g_idx != first.g_idx) {
            return Verdict::Misreads { why: format!("{name}: its parts have different orders, one is kept") };
        }
        let (bits, in_features) = (spec.bits.get(), first.in_features);
        let out_features: usize = parts.iter().map(|p| p.out_features).sum();
        if !matches!(bits, 4 | 8) {
            return refuses(format!("{name}: {bits} bits; it has kernels for 4 and 8"));
        }
        if spec.group_size.is_some_and(|g| !in_features.is_multiple_of(g)) {
            return refuses(format!("{name}: {in_features} input features are not whole groups"));
        }
        let marlin = (spec.symmetric || bits == 4)
            && matches!(spec.group_size, None | Some(32 | 64 | 128))
            && out_features.is_multiple_of(64)
            && in_features.is_multiple_of(128);
        if marlin {
            continue;
        }
        let machete = first.g_idx.is_none()
            && matches!(spec.group_size, None | Some(128))
            && out_features.is_multiple_of(128)
            && in_features.is_multiple_of(64);
        slow += 1;
        let kernel = match (spec.symmetric, machete) {
            (true, _) if out_features.is_multiple_of(usize::from(32 / bits)) => "exllama (float16 only)",
            (_, true) => "Machete (Hopper only)",
            _ => return refuses(format!("{name} is {out_features} x {in_features}: none of its kernels takes it")),
        };
        if why_slow.is_empty() {
            why_slow = format!("{kernel} for {name}, {out_features} x {in_features}");
        }
    }
    if let Some(name) = dense.iter().find(|name| config.group(name).is_some_and(|g| g.weights.is_some())) {
        return refuses(format!("{name} is in full precision, which `ignore` does not say"));
    }
    let how = match slow {
        _ if bytes == joined.len() && bytes > 0 => kernel_of_bytes.to_owned(),
        _ if bytes > 0 => format!("{kernel_of_bytes} for {bytes} of {} matrices", joined.len()),
        0 => "Marlin".to_owned(),
        n => format!("Marlin for {} of {} matrices; {why_slow}", joined.len() - n, joined.len()),
    };
    Verdict::Loads { how }
}

#[cfg(test)]
mod tests {
    use super::super::{ActivationSpec, ConfigGroup, Target};
    use super::*;
    use quant_core::activation::ActivationGrid;
    use quant_core::affine::Bits;

    fn layer(config: &Config) -> Vec<ModuleFacts> {
        let shapes = [
            ("self_attn.q_proj", 256, 256),
            ("self_attn.k_proj", 96, 256),
            ("self_attn.v_proj", 96, 256),
            ("self_attn.o_proj", 256, 256),
            ("mlp.gate_proj", 768, 256),
            ("mlp.up_proj", 768, 256),
            ("mlp.down_proj", 256, 768),
        ];
        let facts = |&(name, out_features, in_features): &(&str, usize, usize)| {
            let name = format!("model.layers.0.{name}");
            let storage = config.storage(&name).unwrap()?;
            Some(ModuleFacts { name, out_features, in_features, storage, g_idx: None })
        };
        shapes.iter().filter_map(facts).collect()
    }

    #[test]
    fn by_config_and_shape() {
        const DOWN: &str = "model.layers.0.mlp.down_proj";
        let new = |bits, group, symmetric| Config::packed(Bits::new(bits).unwrap(), group, symmetric);
        let target = |text: &str| Target::new("", text, 1).unwrap();
        let ignoring = |text: &str| {
            let mut config = new(4, Some(128), true);
            config.ignore.push(target(text));
            config
        };
        let mixed = |text: &str| {
            let mut config = new(4, Some(128), true);
            let eight = Bits::new(8).unwrap();
            config.groups.push(ConfigGroup::packed("g", vec![target(text)], eight, Some(128), true));
            config
        };
        let int8 = ActivationGrid::Int8 { symmetric: true };
        let eight_bit = |code, activations: Option<(ActivationGrid, InputScales)>| {
            let activations = activations.map(|(grid, scales)| ActivationSpec { grid, scales });
            Config::eight_bit(&EightBitSpec::new(code, activations))
        };
        let mut beside_packed = new(4, Some(128), true);
        let token = ActivationSpec { grid: int8, scales: InputScales::Token };
        let spec = EightBitSpec::new(EightBitCode::Int8, Some(token));
        beside_packed.groups.push(ConfigGroup::eight_bit("g", vec![target("re:.*down_proj")], &spec));
        let mut asymmetric = eight_bit(EightBitCode::Int8, Some((int8, InputScales::Token)));
        asymmetric.groups[0].weights.as_mut().unwrap().symmetric = false;
        let cases: Vec<(Config, fn(&mut Vec<ModuleFacts>), &[&str], &str, &str)> = vec![
            (new(4, Some(128), true), |_| {}, &[], "yes", "yes: Marlin"),
            (new(8, None, true), |_| {}, &[], "yes", "yes: Marlin"),
            (new(4, Some(64), false), |_| {}, &[], "no: model.layers.0.self_attn.q_proj: its shape", "yes: Marlin"),
            (
                eight_bit(EightBitCode::Int8, Some((int8, InputScales::Token))),
                |_| {},
                &[],
                "yes: weights decompressed to full precision, activations rounded",
                "yes: int8 products",
            ),
            (
                eight_bit(EightBitCode::Int8, Some((int8, InputScales::Static))),
                |_| {},
                &[],
                "yes",
                "yes: int8 products",
            ),
            (eight_bit(EightBitCode::Int8, Some((int8, InputScales::Tensor))), |_| {}, &[], "yes", "one dynamic scale"),
            (
                eight_bit(EightBitCode::Int8, None),
                |_| {},
                &[],
                "yes: weights decompressed to full precision",
                "pack-quantized",
            ),
            (
                eight_bit(EightBitCode::E4M3, Some((ActivationGrid::E4M3, InputScales::Token))),
                |_| {},
                &[DOWN],
                "no: model.layers.0.mlp.down_proj is in full",
                "no: model.layers.0.mlp.down_proj",
            ),
            (eight_bit(EightBitCode::E4M3, None), |_| {}, &[], "yes", "yes: FP8 Marlin"),
            (asymmetric, |_| {}, &[], "yes", "zero points of weights"),
            (beside_packed, |_| {}, &[], "yes", "yes: int8 products for 1 of 4 matrices"),
            (new(3, Some(128), true), |_| {}, &[], "yes", "no: model.layers.0.mlp.down_proj: 3 bits"),
            (new(4, Some(96), true), |_| {}, &[], "no: model.layers.0.self_attn.q_proj: 256 input", "no"),
            (new(4, Some(16), true), |_| {}, &[], "yes", "yes: Marlin for 0 of 4 matrices; exllama (float16 only) for"),
            (
                new(8, Some(128), false),
                |m| m.remove(1).out_features = 0,
                &[],
                "no",
                "no: model.layers.0.self_attn.qkv_proj is 352 x 256",
            ),
            (new(8, Some(128), false), |m| m.truncate(1), &[], "no", "yes: Marlin for 0 of 1 matrices; Machete"),
            (
                new(4, Some(128), true),
                |m| m.truncate(6),
                &[DOWN],
                "no: model.layers.0.mlp.down_proj is in full",
                "no: model.layers.0.mlp.down_proj is",
            ),
            (ignoring(DOWN), |_| {}, &[DOWN], "yes", "yes: Marlin"),
            (
                ignoring("re:.*q_proj"),
                |_| {},
                &["model.layers.0.self_attn.q_proj"],
                "yes",
                "no: model.layers.0.self_attn.qkv_proj: model.layers.0.self_attn.q_proj is in",
            ),
            (mixed("re:.*down"), |_| {}, &[], "yes", "yes: Marlin"),
            (mixed("re:.*up_proj"), |_| {}, &[], "yes", "stored differently"),
            (
                new(4, Some(128), true),
                |m| m[0].g_idx = Some(vec![1, 0]),
                &[],
                "wrongly",
                "wrongly: model.layers.0.self_attn.qkv_proj",
            ),
        ];
        for (config, change, dense, transformers, vllm) in cases {
            let mut modules = layer(&config);
            change(&mut modules);
            let verdicts = loads_in(&config, &modules, dense);
            let (t, v) = (verdicts.transformers.to_string(), verdicts.vllm.to_string());
            assert!(t.starts_with(transformers) && (v.starts_with(vllm) || v.contains(vllm)), "{config:?}: {t}; {v}");
        }
    }
}
