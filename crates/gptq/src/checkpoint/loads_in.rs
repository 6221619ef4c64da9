//! Which readers take a checkpoint, and how: known from its config and shapes alone.
//!
//! Facts: vLLM's `gptq_marlin.py`, `gptq.py`, `utils/gptq_utils.py`, `utils/marlin_utils.py` and `kernels/linear/mixed_precision/exllama.py`
//! (of 2026); GPTQModel 7.7's `models/loader.py` and `nn_modules/qlinear/`; transformers 5 loads GPTQ through GPTQModel alone.

use super::{GptqConfig, LoadsIn, ModuleSpec, Verdict, ZeroPoint};
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
    /// How the config says it is stored.
    pub spec: ModuleSpec,
    /// What its fields of `qzeros` mean, see [`super::StoredModule::zero_point`].
    pub zero_point: ZeroPoint,
    /// The groups of its columns where they are not in order; modules with equal ones share an order.
    pub g_idx: Option<Vec<u32>>,
}

/// Which readers take a checkpoint of this config, these quantized modules and these modules in full precision (linear layers of the decoder; names
/// without `.weight`).
pub fn loads_in(config: &GptqConfig, modules: &[ModuleFacts], dense: &[&str]) -> LoadsIn {
    LoadsIn { transformers: gptqmodel(config, modules, dense), vllm: vllm(config, modules, dense) }
}

fn gptqmodel(config: &GptqConfig, modules: &[ModuleFacts], dense: &[&str]) -> Verdict {
    let refuses = |why: String| Verdict::Refuses { why };
    if !config.sym && config.zero_point == ZeroPoint::MinusOne && !config.quantizer.iter().any(|q| is_recent(q)) {
        return refuses("asymmetric in format `gptq` and not by gptqmodel 0.9 or later; `gptq_v2` is taken".into());
    }
    for m in modules {
        let (name, out_features, in_features) = (&m.name, m.out_features, m.in_features);
        if in_features % 32 != 0 || out_features % 32 != 0 {
            return refuses(format!("{name}: {out_features} x {in_features} features, not multiples of 32"));
        }
        if let Some(g) = m.spec.group_size
            && !matches!(g, 16 | 32 | 64 | 128 | 256 | 512 | 1024)
            && g != in_features
        {
            return refuses(format!("{name}: groups of {g}; 16, 32, 64 .. 1024 and -1 are taken"));
        }
    }
    // It makes a quantized layer of each linear of the decoder that no rule leaves out.
    if let Some(name) = dense.iter().find(|name| config.module(name).is_some()) {
        return refuses(format!("{name} is in full precision, which no rule of `dynamic` says"));
    }
    if let Some(m) = modules.iter().find(|m| m.zero_point != config.zero_point) {
        let why = format!("{}: zero points stored as in `{}`", m.name, m.zero_point.name());
        return Verdict::Misreads { why: format!("{why}, `{}` declared", config.zero_point.name()) };
    }
    Verdict::Loads { how: "any of its kernels for these bits".into() }
}

/// `gptqmodel:x.y.z` from 0.9.0 on.
fn is_recent(quantizer: &str) -> bool {
    let Some((name, version)) = quantizer.split_once(':') else { return false };
    let mut parts = version.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
    name == "gptqmodel" && (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (0, 9)
}

fn vllm(config: &GptqConfig, modules: &[ModuleFacts], dense: &[&str]) -> Verdict {
    let refuses = |why: String| Verdict::Refuses { why };
    let marlin_type = |s: &ModuleSpec| s.sym && matches!(s.bits.get(), 4 | 8);
    let marlin_group = |g: Option<usize>| matches!(g, None | Some(32 | 64 | 128));
    let base =
        ModuleSpec { bits: config.bits, group_size: config.group_size, sym: config.sym, desc_act: config.desc_act };
    // Chosen once, from the config alone.
    let marlin = marlin_type(&base) && marlin_group(base.group_size);
    let (mut by_exllama, mut why_exllama) = (0usize, String::new());
    let modules = by_joined_name(modules, |m| &m.name);
    for (name, parts) in &modules {
        let Some(first) = parts.first() else { continue };
        if let Some(other) = dense.iter().find(|d| joined_name(d) == *name) {
            return refuses(format!("{name}: {other} is in full precision, {} is not", first.name));
        }
        let spec = first.spec;
        if let Some(other) = parts.iter().find(|p| p.spec != spec) {
            return refuses(format!("{name}: {} and {} are stored differently", first.name, other.name));
        }
        // Rules are looked up by the joined name.
        if config.module(name) != Some(spec) {
            return refuses(format!(
                "{name}: the rules of `dynamic` do not match this joined name as they do its parts"
            ));
        }
        if spec.desc_act && parts.iter().any(|p| p.g_idx != first.g_idx) {
            return Verdict::Misreads { why: format!("{name}: its parts have different orders, one is kept") };
        }
        if !spec.desc_act && parts.iter().any(|p| p.g_idx.is_some()) {
            return Verdict::Misreads { why: format!("{name}: `g_idx` is not read where `desc_act` is false") };
        }
        let in_features = first.in_features;
        let out_features: usize = parts.iter().map(|p| p.out_features).sum();
        let bits = usize::from(spec.bits.get());
        // The fewest codes that fill whole words.
        let fill = if bits == 3 { 32 } else { 32 / bits };
        let ragged = spec.group_size.is_some_and(|g| g == 0 || !in_features.is_multiple_of(g));
        if marlin {
            if !marlin_type(&spec) {
                return refuses(format!("{name}: only symmetric 4 or 8 bits beside the config's {} bits", config.bits));
            }
            if !ragged
                && marlin_group(spec.group_size)
                && out_features.is_multiple_of(64)
                && in_features.is_multiple_of(128)
            {
                continue;
            }
            by_exllama += 1;
            if why_exllama.is_empty() {
                why_exllama = format!("{name} is {out_features} x {in_features}");
            }
            if spec.group_size.is_none() {
                return refuses(format!("{why_exllama}: Marlin takes multiples of 64 x 128, exllama no groups of -1"));
            }
        }
        if ragged {
            return refuses(format!("{name}: {in_features} input features are not whole groups"));
        }
        if !out_features.is_multiple_of(fill) || !(in_features * bits).is_multiple_of(32) {
            return refuses(format!("{name}: {out_features} x {in_features} features do not fill whole words"));
        }
        if !marlin && let Some(p) = parts.iter().find(|p| p.zero_point != config.zero_point) {
            let (stored, declared) = (p.zero_point.name(), config.zero_point.name());
            return Verdict::Misreads { why: format!("{}: zero points of `{stored}`, `{declared}` declared", p.name) };
        }
    }
    let how = if !marlin {
        let why = match (marlin_type(&base), base.sym) {
            (true, _) => format!("groups of {}", base.group_size.unwrap_or(0)),
            (_, false) => "asymmetric".into(),
            _ => format!("{} bits", base.bits),
        };
        format!(
            "exllama (slow, float16 only; Marlin takes symmetric 4 or 8 bits in groups of -1, 32, 64, 128: this is {why})"
        )
    } else if by_exllama == 0 {
        "Marlin".into()
    } else {
        format!(
            "Marlin for {} of {} matrices, exllama (float16 only) for the others: {why_exllama}, Marlin takes multiples of 64 x 128",
            modules.len() - by_exllama,
            modules.len()
        )
    };
    Verdict::Loads { how }
}

#[cfg(test)]
mod tests {
    use super::super::{DynamicRule, Overrides};
    use super::*;
    use quant_core::affine::Bits;

    fn bits(b: u8) -> Bits {
        Bits::new(b).unwrap()
    }

    /// A layer's modules of a small model: hidden 256, heads 256 and 128, feed-forward 768.
    fn layer(config: &GptqConfig) -> Vec<ModuleFacts> {
        let shapes = [
            ("self_attn.q_proj", 256, 256),
            ("self_attn.k_proj", 128, 256),
            ("self_attn.v_proj", 128, 256),
            ("self_attn.o_proj", 256, 256),
            ("mlp.gate_proj", 768, 256),
            ("mlp.up_proj", 768, 256),
            ("mlp.down_proj", 256, 768),
        ];
        shapes
            .iter()
            .filter_map(|(name, out_features, in_features)| {
                let name = format!("model.layers.0.{name}");
                Some(ModuleFacts {
                    spec: config.module(&name)?,
                    name,
                    out_features: *out_features,
                    in_features: *in_features,
                    zero_point: config.zero_point,
                    g_idx: None,
                })
            })
            .collect()
    }

    fn verdicts(config: &GptqConfig, change: impl Fn(&mut Vec<ModuleFacts>), dense: &[&str]) -> (String, String) {
        let mut modules = layer(config);
        change(&mut modules);
        let LoadsIn { transformers, vllm } = loads_in(config, &modules, dense);
        (transformers.to_string(), vllm.to_string())
    }

    #[test]
    fn by_config() {
        let sym = |b, g| GptqConfig::new(bits(b), g, true);
        let asym = |b, g| GptqConfig::new(bits(b), g, false);
        let v1 = |c: GptqConfig| GptqConfig { zero_point: ZeroPoint::MinusOne, ..c };
        let by = |c: GptqConfig, q: &str| GptqConfig { quantizer: vec![q.into()], ..c };
        for (config, transformers, vllm) in [
            (sym(4, Some(128)), "yes", "yes: Marlin"),
            (sym(8, Some(32)), "yes", "yes: Marlin"),
            (sym(4, None), "yes", "yes: Marlin"),
            (sym(4, Some(256)), "yes", "yes: exllama"),
            (sym(4, Some(16)), "yes", "groups of 16"),
            (sym(3, Some(64)), "yes", "this is 3 bits"),
            (asym(4, Some(128)), "yes", "asymmetric"),
            (asym(2, Some(32)), "yes", "exllama"),
            (v1(asym(4, Some(128))), "no: asymmetric", "yes: exllama"),
            (by(v1(asym(4, Some(128))), "gptqmodel:7.7.0"), "yes", "yes: exllama"),
            (by(v1(asym(4, Some(128))), "gptqmodel:0.8.9"), "no: asymmetric", "yes: exllama"),
            (by(v1(asym(4, Some(128))), "other:7.7.0"), "no: asymmetric", "yes: exllama"),
            (sym(4, Some(96)), "no: model.layers.0.self_attn.q_proj: groups of 96", "not whole groups"),
        ] {
            let (t, v) = verdicts(&config, |_| {}, &[]);
            assert!(t.starts_with(transformers) && v.contains(vllm), "{config:?}: {t}; {v}");
        }
    }

    #[test]
    fn by_shape() {
        let config = GptqConfig::new(bits(4), Some(32), true);
        // Joined, 256 + 96 + 96 features are 448, a multiple of 64; apart, 96 is none.
        let narrow =
            |m: &mut Vec<ModuleFacts>| m.iter_mut().filter(|m| m.out_features == 128).for_each(|m| m.out_features = 96);
        assert_eq!(verdicts(&config, narrow, &[]).1, "yes: Marlin");
        let (t, v) = verdicts(&config, |m| m[6].in_features = 800, &[]);
        assert!(t.starts_with("yes") && v.starts_with("yes: Marlin for 3 of 4 matrices, exllama"), "{t}; {v}");
        assert!(v.contains("down_proj is 256 x 800"), "{v}");
        let (t, v) = verdicts(&config, |m| m[6].in_features = 808, &[]);
        assert!(t.starts_with("no: model.layers.0.mlp.down_proj: 256 x 808") && v.starts_with("no"), "{t}; {v}");
        let whole = GptqConfig::new(bits(4), None, true);
        assert!(verdicts(&whole, |m| m[6].in_features = 800, &[]).1.contains("no groups of -1"));
    }

    #[test]
    fn joined_modules_must_agree() {
        let mut config = GptqConfig::new(bits(4), Some(128), true);
        let eight = Overrides { bits: Some(bits(8)), ..Overrides::default() };
        config.dynamic = vec![DynamicRule::overriding(".*q_proj", eight).unwrap()];
        let (t, v) = verdicts(&config, |_| {}, &[]);
        assert!(t.starts_with("yes") && v.contains("stored differently"), "{t}; {v}");
        config.dynamic = vec![DynamicRule::overriding(r".*\.[qkv]_proj", eight).unwrap()];
        assert!(verdicts(&config, |_| {}, &[]).1.contains("joined name"));
        config.dynamic = vec![DynamicRule::overriding(r".*self_attn\.", eight).unwrap()];
        assert_eq!(verdicts(&config, |_| {}, &[]).1, "yes: Marlin");
        let three = Overrides { bits: Some(bits(3)), ..Overrides::default() };
        config.dynamic = vec![DynamicRule::overriding(r".*self_attn\.", three).unwrap()];
        assert!(verdicts(&config, |_| {}, &[]).1.starts_with("no: model.layers.0.self_attn.o_proj: only symmetric"));

        // A module in full precision.
        let (q, down) = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj");
        config.dynamic = vec![DynamicRule::skip_module(q).unwrap()];
        let (t, v) = verdicts(&config, |_| {}, &[q]);
        assert!(t.starts_with("yes") && v.contains("q_proj is in full precision"), "{t}; {v}");
        config.dynamic = vec![DynamicRule::skip_module(down).unwrap()];
        let (t, v) = verdicts(&config, |_| {}, &[down]);
        assert_eq!((t.as_str(), v.as_str()), ("yes: any of its kernels for these bits", "yes: Marlin"));
        config.dynamic.clear();
        assert!(verdicts(&config, |m| m.truncate(6), &[down]).0.contains("which no rule"));
    }

    #[test]
    fn orders_and_conventions() {
        let order = |n: usize, by: u32| Some((0..256).map(|i| (i + by) % n as u32).collect::<Vec<u32>>());
        let config = GptqConfig { desc_act: true, ..GptqConfig::new(bits(4), Some(32), true) };
        let shared = |m: &mut Vec<ModuleFacts>| m[..3].iter_mut().for_each(|m| m.g_idx = order(8, 1));
        assert_eq!(verdicts(&config, shared, &[]).1, "yes: Marlin");
        let apart = |m: &mut Vec<ModuleFacts>| (0..3).for_each(|i| m[i].g_idx = order(8, i as u32));
        assert!(verdicts(&config, apart, &[]).1.starts_with("wrongly: model.layers.0.self_attn.qkv_proj"));
        let unsaid = GptqConfig { desc_act: false, ..config.clone() };
        assert!(verdicts(&unsaid, shared, &[]).1.contains("`g_idx` is not read"));

        // Fields of v2 under a config that says v1: Marlin does not look, the others are a step off.
        let lies = |m: &mut Vec<ModuleFacts>| m.iter_mut().for_each(|m| m.zero_point = ZeroPoint::AsIs);
        let (t, v) = verdicts(&config, lies, &[]);
        assert!(t.starts_with("wrongly") && v == "yes: Marlin", "{t}; {v}");
        let three = GptqConfig::new(bits(3), Some(32), true);
        assert!(verdicts(&three, lies, &[]).1.starts_with("wrongly"));
    }
}
