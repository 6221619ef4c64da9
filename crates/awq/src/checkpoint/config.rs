//! `quantization_config` of config.json; AutoAWQ's older files have it as `quant_config.json`.

use super::{CheckpointError, Result};
use quant_core::affine::{AffineMatrix, Bits};
use quant_core::checkpoint::{
    Keys, MAX_PATTERNS, Pattern, group_size_from_json, group_size_to_json, unsupported, wrong,
};
use serde_json::{Map, Value, json};

/// How codes and zero points lie in their tensors: `version` of the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `gemm`, which every reader takes.
    Gemm,
    /// `gemv`.
    Gemv,
    /// `gemv_fast`, and `llm-awq`, which differs in the name of a tensor.
    GemvFast,
}

impl Layout {
    /// As `version` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gemm => "gemm",
            Self::Gemv => "gemv",
            Self::GemvFast => "gemv_fast",
        }
    }
}

/// The config of an AWQ checkpoint: keys of AutoAWQ, GPTQModel, transformers and vLLM, read and written.
///
/// ```
/// use awq::checkpoint::AwqConfig;
/// use quant_core::affine::Bits;
/// let config = AwqConfig::new(Bits::new(4).unwrap(), Some(128), true);
/// let json = config.to_json("my-tool:1.0");
/// assert_eq!((&json["quant_method"], &json["version"]), (&"awq".into(), &"gemm".into()));
/// assert_eq!(AwqConfig::from_json(&json)?.group_size, Some(128));
/// # Ok::<(), awq::checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AwqConfig {
    /// Bits of a code.
    pub bits: Bits,
    /// Input features of a group; `None` for all of them, -1 in the file.
    pub group_size: Option<usize>,
    /// Zero points count; else they are all `2^(bits - 1)`, and are stored all the same.
    pub zero_point: bool,
    /// How tensors are laid out.
    pub layout: Layout,
    /// Modules in full precision. A module is one of them if its name contains one of these, as AutoAWQ and vLLM have it.
    pub modules_to_not_convert: Vec<String>,
    /// The same said to GPTQModel, which does not read the list: rules `-:regex` of its `dynamic`. Written from the list.
    pub skip_rules: Vec<Pattern>,
    /// What made it (`meta.quantizer`, or `provider`).
    pub quantizer: Vec<String>,
}

/// How one module is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleSpec {
    /// Bits of a code.
    pub bits: Bits,
    /// Input features of a group, `None` for all.
    pub group_size: Option<usize>,
    /// Zero points may be other than `2^(bits - 1)`.
    pub zero_point: bool,
    /// How tensors are laid out.
    pub layout: Layout,
}

impl AwqConfig {
    /// A config for writing, layout `gemm`. With `zero_point` false vLLM's fast kernel (Marlin) does not take it, although the zero points are stored
    /// either way; true is right for symmetric matrices too.
    pub fn new(bits: Bits, group_size: Option<usize>, zero_point: bool) -> Self {
        Self {
            bits,
            group_size,
            zero_point,
            layout: Layout::Gemm,
            modules_to_not_convert: Vec::new(),
            skip_rules: Vec::new(),
            quantizer: Vec::new(),
        }
    }

    /// Reads a `quant_config.json`, or the value of `quantization_config`.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] for a key that is missing or impossible; [`CheckpointError::Unsupported`] for another quantization method or a
    /// layout other than `gemm`, `gemv`, `gemv_fast` and `llm-awq`, for bits that a layout does not have, and for modules that are quantized otherwise.
    pub fn from_json(json: &Value) -> Result<Self> {
        let Value::Object(map) = json else { return Err(wrong("quantization config", "an object", json)) };
        let keys = Keys { map, path: "" };
        if let Some(method) = keys.text("quant_method")?.or(keys.text("method")?)
            && !method.eq_ignore_ascii_case("awq")
        {
            return Err(unsupported("quant_method", method, "awq"));
        }
        let either = |a: &'static str, b: &'static str| match (keys.get(a), keys.get(b)) {
            (Some(value), _) => Ok((a, value)),
            (None, Some(value)) => Ok((b, value)),
            (None, None) => Err(wrong(a, "a value", &Value::Null)),
        };
        let (key, value) = either("bits", "w_bit")?;
        let bits = value.as_u64().and_then(|b| u8::try_from(b).ok()).and_then(Bits::new);
        let bits = bits.ok_or_else(|| wrong(key, "2 to 8", value))?;
        let (key, value) = either("group_size", "q_group_size")?;
        let group_size = group_size_from_json(key, value)?;
        let layout = layout(&keys)?;
        if layout != Layout::Gemm && bits.get() != 4 {
            return Err(unsupported("bits", &bits.to_string(), &format!("4 in layout {}", layout.name())));
        }
        let provider = keys.text("provider")?.map(str::to_owned);
        let quantizer = match keys.get("meta").and_then(|m| m.get("quantizer")) {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(all)) => all.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            _ => provider.into_iter().collect(),
        };
        Ok(Self {
            bits,
            group_size,
            zero_point: keys.boolean("zero_point")?.or(keys.boolean("sym")?.map(|sym| !sym)).unwrap_or(true),
            layout,
            modules_to_not_convert: modules(keys.get("modules_to_not_convert"))?,
            skip_rules: skip_rules(keys.get("dynamic"))?,
            quantizer,
        })
    }

    /// The object for config.json, with the keys that AutoAWQ, GPTQModel, transformers and vLLM look for. `quantizer` names what made it
    /// (`name:version`).
    pub fn to_json(&self, quantizer: &str) -> Value {
        let skipped = &self.modules_to_not_convert;
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("quant_method", "awq".into());
        put("bits", self.bits.get().into());
        put("group_size", group_size_to_json(self.group_size));
        put("zero_point", self.zero_point.into());
        put("version", self.layout.name().into());
        put("modules_to_not_convert", if skipped.is_empty() { Value::Null } else { json!(skipped) });
        if !skipped.is_empty() {
            let rule = |part: &String| (format!("-:{}", Pattern::containing(part)), json!({}));
            put("dynamic", Value::Object(skipped.iter().map(rule).collect()));
        }
        put("meta", json!({"quantizer": [quantizer]}));
        Value::Object(map)
    }

    /// How a module is stored by this config; `None` if it is left in full precision.
    pub fn module(&self, name: &str) -> Option<ModuleSpec> {
        let Self { bits, group_size, zero_point, layout, .. } = *self;
        let listed = self.modules_to_not_convert.iter().any(|part| name.contains(part.as_str()));
        let skipped = listed || self.skip_rules.iter().any(|rule| rule.matches(name));
        (!skipped).then_some(ModuleSpec { bits, group_size, zero_point, layout })
    }

    /// Checks that readers of this config will read `matrix` rightly as the module `name`.
    ///
    /// # Errors
    /// [`CheckpointError::NotStorable`] for a module that is left in full precision, other bits or groups than the config's, or a zero point off the
    /// middle where `zero_point` is false.
    pub fn check(&self, name: &str, matrix: &AffineMatrix) -> Result<ModuleSpec> {
        let no = |why: String| Err(CheckpointError::NotStorable { why: format!("module `{name}`: {why}") });
        let Some(spec) = self.module(name) else {
            return no("the config leaves it in full precision".into());
        };
        if spec.bits != matrix.bits() {
            return no(format!("{} bits, {} in the config", matrix.bits(), spec.bits));
        }
        let width = |g: usize| g.min(matrix.in_features());
        let expected = width(spec.group_size.unwrap_or(usize::MAX));
        if width(matrix.group_size()) != expected {
            return no(format!("groups of {}, {expected} in the config", matrix.group_size()));
        }
        if !spec.zero_point && !matrix.is_symmetric() {
            return no("zero points off the middle, `zero_point` false in the config".into());
        }
        Ok(spec)
    }
}

fn layout(keys: &Keys<'_>) -> Result<Layout> {
    let named = keys.text("version")?.or(keys.text("format")?).or(keys.text("checkpoint_format")?);
    // transformers' older configs name the tool instead.
    let named = named.or(keys.text("backend")?.filter(|b| *b == "llm-awq"));
    match named.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "gemm") => Ok(Layout::Gemm),
        Some("gemv") => Ok(Layout::Gemv),
        Some("gemv_fast" | "llm-awq") => Ok(Layout::GemvFast),
        Some(other) => Err(unsupported("version", other, "gemm, gemv, gemv_fast and llm-awq")),
    }
}

/// The rules of `dynamic` that leave modules out; it has no others here.
fn skip_rules(value: Option<&Value>) -> Result<Vec<Pattern>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let map = value.as_object().ok_or_else(|| wrong("dynamic", "an object of regular expressions", value))?;
    if map.len() > MAX_PATTERNS {
        return Err(CheckpointError::Config {
            key: "dynamic".into(),
            expected: format!("at most {MAX_PATTERNS} rules"),
            found: map.len().to_string(),
        });
    }
    let rule = |(key, value): (&String, &Value)| match key.strip_prefix("-:") {
        Some(pattern) => Pattern::new(&format!("dynamic: {key}"), pattern, map.len()),
        None => Err(unsupported(&format!("dynamic: {key}"), &value.to_string(), "leaving modules out (`-:`)")),
    };
    map.iter().map(rule).collect()
}

fn modules(value: Option<&Value>) -> Result<Vec<String>> {
    let key = "modules_to_not_convert";
    let Some(value) = value else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(|| wrong(key, "a list of names", value))?;
    if list.len() > MAX_PATTERNS {
        return Err(CheckpointError::Config {
            key: key.into(),
            expected: format!("at most {MAX_PATTERNS} names"),
            found: list.len().to_string(),
        });
    }
    let name = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    list.iter().map(|v| name(v).ok_or_else(|| wrong(key, "names", v))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use quant_core::affine::AffineParts;

    fn four() -> Bits {
        Bits::new(4).unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut config = AwqConfig::new(four(), None, false);
        config.modules_to_not_convert = vec!["lm_head".into(), "model.layers.1.mlp.up_proj".into()];
        let json = config.to_json("a:1");
        assert_eq!(json["group_size"], -1);
        assert_eq!(json["dynamic"], json!({"-:.*lm_head": {}, r"-:.*model\.layers\.1\.mlp\.up_proj": {}}));
        config.quantizer = vec!["a:1".into()];
        let rules = [r".*lm_head", r".*model\.layers\.1\.mlp\.up_proj"];
        config.skip_rules = rules.iter().map(|rule| Pattern::new("", rule, 2).unwrap()).collect();
        assert_eq!(AwqConfig::from_json(&serde_json::from_str(&json.to_string()).unwrap()).unwrap(), config);
        assert!(AwqConfig::new(four(), None, true).to_json("a")["modules_to_not_convert"].is_null());
    }

    #[test]
    fn keys_of_different_writers() {
        let read = |json: Value| AwqConfig::from_json(&json).unwrap();
        let auto = read(json!({"bits": 4, "group_size": 128, "modules_to_not_convert": null, "quant_method": "awq",
            "version": "gemm", "zero_point": true}));
        assert_eq!((auto.layout, auto.group_size, auto.zero_point), (Layout::Gemm, Some(128), true));
        let old = read(json!({"zero_point": true, "q_group_size": 64, "w_bit": 4, "version": "GEMV"}));
        assert_eq!((old.layout, old.group_size), (Layout::Gemv, Some(64)));
        let fast = read(json!({"w_bit": 4, "q_group_size": -1, "version": "gemv_fast"}));
        assert_eq!((fast.layout, fast.group_size), (Layout::GemvFast, None));
        let llm = read(json!({"bits": 4, "group_size": 128, "backend": "llm-awq"}));
        assert_eq!(llm.layout, Layout::GemvFast);
        let round =
            read(json!({"bits": 4, "group_size": 64, "sym": true, "zero_point": false, "provider": "auto-round",
            "quant_method": "awq", "version": "gemm", "modules_to_not_convert": ["lm_head"]}));
        assert_eq!((round.zero_point, round.quantizer), (false, vec!["auto-round".into()]));
        let model = read(json!({"bits": 8, "group_size": 32, "sym": true, "method": "awq", "format": "gemm",
            "meta": {"quantizer": ["gptqmodel:7.7.0"]}}));
        assert_eq!((model.zero_point, model.quantizer), (false, vec!["gptqmodel:7.7.0".into()]));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (change, words) in [
            (json!({"bits": 9}), &["`bits`", "2 to 8", "found 9"][..]),
            (json!({"bits": null}), &["`bits`", "found null"]),
            (json!({"bits": null, "w_bit": "4"}), &["`w_bit`", "\"4\""]),
            (json!({"group_size": 0}), &["`group_size`", "-1 or a positive number"]),
            (json!({"zero_point": 1}), &["`zero_point`", "true or false"]),
            (json!({"quant_method": "gptq"}), &["`quant_method` gptq is not supported"]),
            (json!({"version": "marlin"}), &["`version` marlin", "gemv_fast"]),
            (json!({"version": "gemv", "bits": 8}), &["`bits` 8", "4 in layout gemv"]),
            (json!({"version": 7}), &["`version`", "a string"]),
            (json!({"dynamic": {"-:(": {}}}), &["dynamic: -:(", "regular expression"]),
            (json!({"dynamic": {"+:a": {"bits": 8}}}), &["`dynamic: +:a`", "leaving modules out"]),
            (json!({"dynamic": []}), &["`dynamic`", "an object"]),
            (json!({"modules_to_not_convert": "lm_head"}), &["`modules_to_not_convert`", "a list"]),
            (json!({"modules_to_not_convert": ["a", ""]}), &["`modules_to_not_convert`", "names"]),
            (json!({"modules_to_not_convert": vec!["x"; MAX_PATTERNS + 1]}), &["at most 16384 names"]),
        ] {
            let mut json = json!({"bits": 4, "group_size": 128});
            json.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let message = AwqConfig::from_json(&json).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{message}: {word}");
            }
        }
        assert!(AwqConfig::from_json(&json!([4])).unwrap_err().to_string().contains("an object"));
    }

    #[test]
    fn matrices_that_readers_would_misread_are_refused() {
        let matrix = |zero: u16| {
            AffineMatrix::from_parts(AffineParts {
                out_features: 1,
                in_features: 4,
                bits: four(),
                group_size: 2,
                codes: vec![0; 4],
                scales: vec![f16::ONE; 2],
                zeros: vec![zero; 2],
                g_idx: None,
            })
            .unwrap()
        };
        let config = AwqConfig::new(four(), Some(2), false);
        assert!(config.check("m", &matrix(8)).is_ok());
        assert!(AwqConfig { zero_point: true, ..config.clone() }.check("m", &matrix(7)).is_ok());
        let eight = AwqConfig { bits: Bits::new(8).unwrap(), ..config.clone() };
        let wide = AwqConfig { group_size: None, ..config.clone() };
        let skipped = AwqConfig { modules_to_not_convert: vec!["a.m".into()], ..config.clone() };
        for (config, name, zero, word) in [
            (&config, "m", 7, "off the middle"),
            (&eight, "m", 8, "4 bits, 8 in the config"),
            (&wide, "m", 8, "groups of 2, 4 in the config"),
            (&skipped, "a.m", 8, "full precision"),
        ] {
            let message = config.check(name, &matrix(zero)).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains(name), "{message}");
        }
        assert!(skipped.check("m", &matrix(8)).is_ok());
    }
}
