//! `quantize_config.json`, which is `quantization_config` in config.json too.

use super::dynamic::{self, DynamicRule, stored_bits};
use super::{CheckpointError, Result, ZeroPoint};
use quant_core::affine::{AffineMatrix, Bits};
use quant_core::checkpoint::{Keys, group_size_from_json, group_size_to_json, unsupported, wrong};
use serde_json::{Map, Value, json};

/// The config of a GPTQ checkpoint: keys of AutoGPTQ and of GPTQModel 7 (`quantization/config.py`), read and written.
///
/// ```
/// use gptq::checkpoint::{GptqConfig, ZeroPoint};
/// use quant_core::affine::Bits;
/// let config = GptqConfig::new(Bits::new(4).unwrap(), Some(128), true);
/// let json = config.to_json("my-tool:1.0");
/// assert_eq!((&json["bits"], &json["checkpoint_format"]), (&4.into(), &"gptq".into()));
/// assert_eq!(GptqConfig::from_json(&json)?.zero_point, ZeroPoint::MinusOne);
/// # Ok::<(), gptq::checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GptqConfig {
    /// Bits of a code where no rule says otherwise: 2, 3, 4 or 8.
    pub bits: Bits,
    /// Input features of a group; `None` for all of them, -1 in the file.
    pub group_size: Option<usize>,
    /// Zero points are all `2^(bits - 1)`. True where the file does not say, as in AutoGPTQ.
    pub sym: bool,
    /// Groups follow the order of activations: `g_idx` counts.
    pub desc_act: bool,
    /// What the fields of `qzeros` are said to mean. Of symmetric modules the fields themselves tell: [`super::StoredModule::zero_point`].
    pub zero_point: ZeroPoint,
    /// The head is quantized.
    pub lm_head: bool,
    /// Overrides by module name; the first that matches counts.
    pub dynamic: Vec<DynamicRule>,
    /// How it was made: groups were fixed before the columns were reordered.
    pub static_groups: bool,
    /// How it was made: a layer's modules saw the output of those quantized before them.
    pub true_sequential: bool,
    /// How it was made: share of the mean diagonal added to the Hessian's.
    pub damp_percent: Option<f64>,
    /// What made it (`meta.quantizer`: `gptqmodel:7.7.0`).
    pub quantizer: Vec<String>,
}

/// How one module is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleSpec {
    /// Bits of a code.
    pub bits: Bits,
    /// Input features of a group, `None` for all.
    pub group_size: Option<usize>,
    /// Zero points are all `2^(bits - 1)`.
    pub sym: bool,
    /// `g_idx` may be other than `i / group_size`.
    pub desc_act: bool,
}

/// Whether the layout has codes of this width: 2, 3, 4 and 8 bits.
pub fn is_stored_width(bits: Bits) -> bool {
    matches!(bits.get(), 2 | 3 | 4 | 8)
}

impl GptqConfig {
    /// A config for writing, in the form that most readers take: symmetric grids as `gptq`, which all know; others as `gptq_v2`, because GPTQModel
    /// refuses asymmetric `gptq` files of other tools and a zero point of 0 has no field of its own there.
    pub fn new(bits: Bits, group_size: Option<usize>, sym: bool) -> Self {
        Self {
            bits,
            group_size,
            sym,
            desc_act: false,
            zero_point: if sym { ZeroPoint::MinusOne } else { ZeroPoint::AsIs },
            lm_head: false,
            dynamic: Vec::new(),
            static_groups: false,
            true_sequential: true,
            damp_percent: None,
            quantizer: Vec::new(),
        }
    }

    /// Reads a `quantize_config.json`, or the value of `quantization_config`.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] for a key that is missing or impossible; [`CheckpointError::Unsupported`] for another quantization method, a
    /// format other than `gptq` and `gptq_v2`, words other than 32 bits, a rotation or an adapter.
    pub fn from_json(json: &Value) -> Result<Self> {
        let Value::Object(map) = json else { return Err(wrong("quantization config", "an object", json)) };
        let keys = Keys { map, path: "" };
        if let Some(method) = keys.text("quant_method")?.or(keys.text("method")?)
            && !method.eq_ignore_ascii_case("gptq")
        {
            return Err(unsupported("quant_method", method, "gptq"));
        }
        let zero_point = match keys.text("checkpoint_format")?.or(keys.text("format")?) {
            None | Some("" | "gptq") => ZeroPoint::MinusOne,
            Some("gptq_v2") => ZeroPoint::AsIs,
            Some(other) => return Err(unsupported("checkpoint_format", other, "gptq and gptq_v2")),
        };
        if let Some(dtype) = keys.text("pack_dtype")?.filter(|d| *d != "int32") {
            return Err(unsupported("pack_dtype", dtype, "int32"));
        }
        for key in ["rotation", "adapter"] {
            if let Some(value) = keys.get(key) {
                return Err(unsupported(key, &value.to_string(), "none"));
            }
        }
        let missing = |key: &str| wrong(key, "a value", &Value::Null);
        let meta = keys.get("meta").and_then(Value::as_object);
        let meta_keys = meta.map(|map| Keys { map, path: "meta" });
        let in_meta = |key: &str| meta_keys.as_ref().and_then(|m| m.boolean(key).transpose()).transpose();
        Ok(Self {
            bits: stored_bits("bits", keys.get("bits").ok_or_else(|| missing("bits"))?)?,
            group_size: group_size_from_json(
                "group_size",
                keys.get("group_size").ok_or_else(|| missing("group_size"))?,
            )?,
            sym: keys.boolean("sym")?.unwrap_or(true),
            desc_act: keys.boolean("desc_act")?.unwrap_or(false),
            zero_point,
            lm_head: keys.boolean("lm_head")?.unwrap_or(false),
            dynamic: dynamic::from_json(keys.get("dynamic").unwrap_or(&Value::Null))?,
            static_groups: keys.boolean("static_groups")?.or(in_meta("static_groups")?).unwrap_or(false),
            true_sequential: keys.boolean("true_sequential")?.or(in_meta("true_sequential")?).unwrap_or(true),
            damp_percent: match keys.number("damp_percent")? {
                Some(damp) => Some(damp),
                None => meta_keys.as_ref().map(|m| m.number("damp_percent")).transpose()?.flatten(),
            },
            quantizer: match meta.and_then(|m| m.get("quantizer")) {
                Some(Value::String(one)) => vec![one.clone()],
                Some(Value::Array(all)) => all.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
                _ => Vec::new(),
            },
        })
    }

    /// The object for both places, with the keys that AutoGPTQ, GPTQModel, transformers and vLLM look for. `quantizer` names what made it
    /// (`name:version`).
    pub fn to_json(&self, quantizer: &str) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("quant_method", "gptq".into());
        put("bits", self.bits.get().into());
        put("group_size", group_size_to_json(self.group_size));
        put("desc_act", self.desc_act.into());
        put("sym", self.sym.into());
        put("lm_head", self.lm_head.into());
        put("true_sequential", self.true_sequential.into());
        put("static_groups", self.static_groups.into());
        if let Some(damp) = self.damp_percent {
            put("damp_percent", json!(damp));
        }
        put("checkpoint_format", self.zero_point.name().into());
        put("format", self.zero_point.name().into());
        put("pack_dtype", "int32".into());
        if !self.dynamic.is_empty() {
            put("dynamic", dynamic::to_json(&self.dynamic));
        }
        put("meta", json!({"quantizer": [quantizer]}));
        Value::Object(map)
    }

    /// How a module is stored by this config; `None` if a rule leaves it in full precision.
    pub fn module(&self, name: &str) -> Option<ModuleSpec> {
        let base = ModuleSpec { bits: self.bits, group_size: self.group_size, sym: self.sym, desc_act: self.desc_act };
        let Some(rule) = self.dynamic.iter().find(|rule| rule.matches(name)) else { return Some(base) };
        let over = rule.overrides()?;
        Some(ModuleSpec {
            bits: over.bits.unwrap_or(base.bits),
            group_size: over.group_size.unwrap_or(base.group_size),
            sym: over.sym.unwrap_or(base.sym),
            desc_act: over.desc_act.unwrap_or(base.desc_act),
        })
    }

    /// Checks that readers of this config will read `matrix` rightly as the module `name`.
    ///
    /// # Errors
    /// [`CheckpointError::NotStorable`] for a module that a rule leaves in full precision; other bits or groups than the config's; a zero point off
    /// the middle where the config says symmetric (vLLM's Marlin does not read `qzeros` there); a `g_idx` without `desc_act` (exllama does not read
    /// it); the head where `lm_head` is false.
    pub fn check(&self, name: &str, matrix: &AffineMatrix) -> Result<ModuleSpec> {
        let no = |why: String| Err(CheckpointError::NotStorable { why: format!("module `{name}`: {why}") });
        let Some(spec) = self.module(name) else {
            return no("the config leaves it in full precision".into());
        };
        if spec.bits != matrix.bits() {
            return no(format!("{} bits, {} in the config", matrix.bits(), spec.bits));
        }
        // A group of more features than there are is one group, and so is -1.
        let width = |g: usize| g.min(matrix.in_features());
        let expected = width(spec.group_size.unwrap_or(usize::MAX));
        if width(matrix.group_size()) != expected {
            return no(format!("groups of {}, {expected} in the config", matrix.group_size()));
        }
        if spec.sym && !matrix.is_symmetric() {
            return no("zero points off the middle, symmetric in the config".into());
        }
        if !spec.desc_act && matrix.g_idx().is_some() {
            return no("groups in another order than the features, `desc_act` false in the config".into());
        }
        if name == "lm_head" && !self.lm_head {
            return no("`lm_head` false in the config".into());
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Overrides;
    use super::*;
    use half::f16;
    use quant_core::affine::AffineParts;

    fn four() -> Bits {
        Bits::new(4).unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut config = GptqConfig::new(four(), None, false);
        config.desc_act = true;
        config.damp_percent = Some(0.05);
        config.dynamic = vec![
            DynamicRule::skip(r".*\.moe\..*").unwrap(),
            DynamicRule::overriding(
                r".*\.(?:1[0-5])\..*",
                Overrides { bits: Bits::new(8), group_size: Some(Some(32)), sym: Some(true), desc_act: None },
            )
            .unwrap(),
            DynamicRule::skip_module("model.layers.1.mlp.up_proj").unwrap(),
        ];
        let json = config.to_json("a:1");
        assert_eq!(json["dynamic"][r"+:.*\.(?:1[0-5])\..*"], json!({"bits": 8, "group_size": 32, "sym": true}));
        assert_eq!(json["group_size"], -1);
        let text = json.to_string();
        config.quantizer = vec!["a:1".into()];
        assert_eq!(GptqConfig::from_json(&serde_json::from_str(&text).unwrap()).unwrap(), config);
    }

    #[test]
    fn rules_apply_in_order_from_the_start_of_the_name() {
        let json = json!({"bits": 4, "group_size": 128, "sym": true, "desc_act": false, "dynamic": {
            "-:a": {}, "+:ab": {"bits": 8}, r"+:.*\.b": {"bits": 8, "group_size": -1}, "c|d": {"desc_act": true, "mse": 2.4},
        }});
        let config = GptqConfig::from_json(&json).unwrap();
        let base = ModuleSpec { bits: four(), group_size: Some(128), sym: true, desc_act: false };
        let eight = Bits::new(8).unwrap();
        for (name, expected) in [
            ("x", Some(base)),
            ("a", None),
            ("ab", None),
            ("xa", Some(base)),
            ("x.b.c", Some(ModuleSpec { bits: eight, group_size: None, ..base })),
            ("dx", Some(ModuleSpec { desc_act: true, ..base })),
            ("xd", Some(base)),
        ] {
            assert_eq!(config.module(name), expected, "{name}");
        }
    }

    #[test]
    fn as_many_rules_as_a_large_model_has_modules() {
        let mut config = GptqConfig::new(four(), Some(128), true);
        let name = |i: usize| format!("model.layers.{}.mlp.experts.{i}.down_proj", i % 64);
        config.dynamic = (0..1 << 14).map(|i| DynamicRule::skip_module(&name(i)).unwrap()).collect();
        let json = config.to_json("a:1");
        let read = GptqConfig::from_json(&json).unwrap();
        assert_eq!((read.module(&name(16_383)), read.dynamic.len()), (None, 1 << 14));
        assert!(read.module(&name(16_384)).is_some());
        let one_more = json["dynamic"].as_object().unwrap().clone().into_iter().chain([("-:x".into(), json!({}))]);
        let many = json!({"bits": 4, "group_size": 128, "dynamic": one_more.collect::<Map<_, _>>()});
        assert!(GptqConfig::from_json(&many).unwrap_err().to_string().contains("at most 16384 rules"));
        // Rules that unfold share a bound.
        let large: Map<_, _> = (0..4096).map(|i| (format!("-:{i}(?:b{{90}}){{90}}"), json!({}))).collect();
        assert!(GptqConfig::from_json(&json!({"bits": 4, "group_size": 128, "dynamic": large})).is_err());
    }

    #[test]
    fn keys_of_different_writers() {
        let read = |json: Value| GptqConfig::from_json(&json).unwrap();
        let old = read(json!({"bits": 4, "group_size": 128, "damp_percent": 0.01, "desc_act": false, "sym": true,
            "true_sequential": true, "model_name_or_path": null, "model_file_base_name": null}));
        assert_eq!((old.zero_point, old.damp_percent, old.quantizer.len()), (ZeroPoint::MinusOne, Some(0.01), 0));
        let new = read(json!({"bits": 3, "group_size": -1, "desc_act": true, "lm_head": true, "method": "gptq",
            "quant_method": "GPTQ", "format": "gptq_v2", "pack_dtype": "int32", "dynamic": null, "rotation": null,
            "meta": {"quantizer": ["gptqmodel:7.7.0"], "damp_percent": 0.05, "static_groups": true}}));
        assert_eq!((new.zero_point, new.damp_percent, new.group_size), (ZeroPoint::AsIs, Some(0.05), None));
        assert!(new.sym && new.desc_act && new.lm_head && new.static_groups);
        assert_eq!(new.quantizer, ["gptqmodel:7.7.0"]);
        let v2 = read(json!({"bits": 2, "group_size": 32, "checkpoint_format": "gptq_v2", "format": "gptq"}));
        assert_eq!(v2.zero_point, ZeroPoint::AsIs);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let with = |change: Value| {
            let mut json = json!({"bits": 4, "group_size": 128});
            json.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            GptqConfig::from_json(&json).unwrap_err().to_string()
        };
        for (change, words) in [
            (json!({"bits": 5}), &["`bits`", "2, 3, 4 or 8", "found 5"][..]),
            (json!({"bits": null}), &["`bits`", "found null"]),
            (json!({"bits": "4"}), &["`bits`", "\"4\""]),
            (json!({"bits": 4.5}), &["`bits`"]),
            (json!({"group_size": 0}), &["`group_size`", "-1 or a positive number"]),
            (json!({"group_size": -2}), &["`group_size`"]),
            (json!({"group_size": 1u64 << 40}), &["`group_size`"]),
            (json!({"sym": "yes"}), &["`sym`", "true or false"]),
            (json!({"quant_method": "awq"}), &["`quant_method` awq is not supported"]),
            (json!({"quant_method": 7}), &["`quant_method`", "a string"]),
            (json!({"checkpoint_format": "marlin"}), &["`checkpoint_format` marlin", "gptq_v2"]),
            (json!({"pack_dtype": "int64"}), &["`pack_dtype` int64"]),
            (json!({"rotation": "hadamard"}), &["`rotation`", "hadamard"]),
            (json!({"dynamic": []}), &["`dynamic`", "an object"]),
            (json!({"dynamic": {"+:(": {}}}), &["dynamic: +:(", "regular expression"]),
            (json!({"dynamic": {"-:a)(b": {}}}), &["dynamic: -:a)(b"]),
            (json!({"dynamic": {"-:(?!a)b": {}}}), &["look-around"]),
            (json!({"dynamic": {"a": 8}}), &["dynamic: a", "an object"]),
            (json!({"dynamic": {"a": {"bits": 7}}}), &["`dynamic: a: bits`"]),
            (json!({"dynamic": {r"a(?:b{900}){900}": {}}}), &["dynamic"]),
        ] {
            let message = with(change.clone());
            for word in words {
                assert!(message.contains(word), "{change}: {message}");
            }
        }
        assert!(GptqConfig::from_json(&json!([4])).unwrap_err().to_string().contains("an object"));
    }

    #[test]
    fn matrices_that_readers_would_misread_are_refused() {
        let matrix = |zero: u16, g_idx: Option<Vec<u32>>| {
            AffineMatrix::from_parts(AffineParts {
                out_features: 1,
                in_features: 4,
                bits: four(),
                group_size: 2,
                codes: vec![0; 4],
                scales: vec![f16::ONE; 2],
                zeros: vec![zero; 2],
                g_idx,
            })
            .unwrap()
        };
        let config = GptqConfig::new(four(), Some(2), true);
        assert!(config.check("m", &matrix(8, None)).is_ok());
        let asym = GptqConfig { sym: false, ..config.clone() };
        assert!(asym.check("m", &matrix(7, None)).is_ok());
        let eight = GptqConfig { bits: Bits::new(8).unwrap(), ..config.clone() };
        let wide = GptqConfig { group_size: None, ..config.clone() };
        let skipped = GptqConfig { dynamic: vec![DynamicRule::skip_module("m").unwrap()], ..config.clone() };
        for (config, name, matrix, word) in [
            (&config, "m", matrix(7, None), "off the middle"),
            (&config, "m", matrix(8, Some(vec![1, 0, 1, 0])), "desc_act"),
            (&config, "lm_head", matrix(8, None), "lm_head"),
            (&eight, "m", matrix(8, None), "4 bits, 8 in the config"),
            (&wide, "m", matrix(8, None), "groups of 2, 4 in the config"),
            (&skipped, "m", matrix(8, None), "full precision"),
        ] {
            let message = config.check(name, &matrix).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains(name), "{message}");
        }
        assert!(skipped.check("m.n", &matrix(8, None)).is_ok());
    }
}
