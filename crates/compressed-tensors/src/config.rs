//! `quantization_config` of config.json.

use super::transform::{self, InputHadamard};
use super::{
    CheckpointError, EightBitSpec, Format, NumberType, QuantArgs, Result, StaticScales, Strategy, Target, eight_bit,
};
use quant_core::affine::{AffineMatrix, Bits};
use quant_core::checkpoint::{Keys, MAX_PATTERNS, unsupported, wrong};
use quant_core::eight_bit::EightBitMatrix;
use serde_json::{Map, Value, json};

/// The config of a compressed-tensors checkpoint.
///
/// ```
/// use compressed_tensors::Config;
/// use quant_core::affine::Bits;
/// let config = Config::packed(Bits::new(4).unwrap(), Some(128), true);
/// let json = config.to_json("my-tool:1.0");
/// assert_eq!((&json["format"], &json["ignore"]), (&"pack-quantized".into(), &serde_json::json!(["lm_head"])));
/// let spec = Config::from_json(&json)?.module("model.layers.0.mlp.up_proj")?.unwrap();
/// assert_eq!((spec.bits.get(), spec.group_size, spec.symmetric), (4, Some(128), true));
/// # Ok::<(), compressed_tensors::CheckpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How tensors are stored, where a group does not say otherwise.
    pub format: Format,
    /// What is quantized how. A module belongs to the first group that names it, else to the first that names its class.
    pub groups: Vec<ConfigGroup>,
    /// Modules in full precision.
    pub ignore: Vec<Target>,
    /// Rotations of inputs while the model runs.
    pub transforms: Vec<InputHadamard>,
    /// Release of the library that wrote it, or what else did.
    pub version: Option<String>,
}

/// A group of `config_groups`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigGroup {
    /// Its name.
    pub name: String,
    /// The modules.
    pub targets: Vec<Target>,
    /// Their weights; `None` in full precision.
    pub weights: Option<QuantArgs>,
    /// What they read; `None` in full precision.
    pub input_activations: Option<QuantArgs>,
    /// How their tensors are stored.
    pub format: Option<Format>,
}

/// How one module is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// `pack-quantized`.
    Packed(ModuleSpec),
    /// `int-quantized`, `float-quantized` and, of 8 bits, `naive-quantized`.
    EightBit(EightBitSpec),
}

/// How one module of format `pack-quantized` is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleSpec {
    /// Bits of a code.
    pub bits: Bits,
    /// Input features of a group, `None` for all.
    pub group_size: Option<usize>,
    /// Zero points are all `2^(bits - 1)`.
    pub symmetric: bool,
    /// `weight_g_idx` counts.
    pub act_order: bool,
}

impl Config {
    /// A config for writing `pack-quantized`: all linear layers alike but the head.
    pub fn packed(bits: Bits, group_size: Option<usize>, symmetric: bool) -> Self {
        Self {
            format: Format::PackQuantized,
            groups: vec![ConfigGroup::packed("group_0", vec![Target::linear()], bits, group_size, symmetric)],
            ignore: vec![Target::Name("lm_head".into())],
            transforms: Vec::new(),
            version: None,
        }
    }

    /// A config for writing `int-quantized` or `float-quantized`: all linear layers alike but the head, one scale per row of the weights.
    pub fn eight_bit(spec: &EightBitSpec) -> Self {
        let group = ConfigGroup::eight_bit("group_0", vec![Target::linear()], spec);
        Self {
            format: eight_bit::format(spec.code),
            groups: vec![group],
            ignore: vec![Target::Name("lm_head".into())],
            transforms: Vec::new(),
            version: None,
        }
    }

    /// Reads the value of `quantization_config`.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] for a key that is missing or impossible; [`CheckpointError::Unsupported`] for another quantization method, weights
    /// that are not compressed, sparsity, transforms while running other than Hadamard's of inputs, and a quantized KV cache or output.
    pub fn from_json(json: &Value) -> Result<Self> {
        let Value::Object(map) = json else { return Err(wrong("quantization config", "an object", json)) };
        let keys = Keys { map, path: "" };
        if let Some(method) = keys.text("quant_method")?.filter(|m| *m != "compressed-tensors") {
            return Err(unsupported("quant_method", method, "compressed-tensors"));
        }
        if let Some(status) = keys.text("quantization_status")?.filter(|s| *s != "compressed") {
            return Err(unsupported("quantization_status", status, "compressed"));
        }
        for key in ["sparsity_config", "kv_cache_scheme", "moe_sparsity_config"] {
            let value = keys.get(key).filter(|v| v.as_object().is_none_or(|o| !o.is_empty()));
            let dense = |v: &Value| key == "sparsity_config" && v.get("format").is_some_and(|f| f == "dense");
            if let Some(value) = value.filter(|v| !dense(v)) {
                return Err(unsupported(key, &value.to_string(), "none"));
            }
        }
        let Some(format) = keys.text("format")? else {
            return Err(wrong("format", "a string", &Value::Null));
        };
        let groups = match keys.get("config_groups") {
            Some(Value::Object(groups)) => groups,
            other => return Err(wrong("config_groups", "an object", other.unwrap_or(&Value::Null))),
        };
        let ignored = match keys.get("ignore") {
            None => &[][..],
            Some(list) => list.as_array().ok_or_else(|| wrong("ignore", "a list of names", list))?,
        };
        // Some of them are regular expressions, which share a bound.
        let targets = |group: &Value| group.get("targets").and_then(Value::as_array).map_or(0, Vec::len);
        let count = groups.values().map(targets).fold(ignored.len(), usize::saturating_add);
        if count > MAX_PATTERNS || groups.len() > MAX_PATTERNS {
            return Err(CheckpointError::Config {
                key: "config_groups and ignore".into(),
                expected: format!("at most {MAX_PATTERNS} targets"),
                found: count.max(groups.len()).to_string(),
            });
        }
        Ok(Self {
            format: Format::from_name(format),
            groups: groups
                .iter()
                .map(|(name, group)| ConfigGroup::from_json(name, group, count))
                .collect::<Result<_>>()?,
            ignore: list("ignore", ignored, count)?,
            transforms: transform::from_json(keys.get("transform_config"))?,
            version: keys.text("version")?.map(str::to_owned),
        })
    }

    /// The object for config.json. `maker` names what made it (`name:version`).
    pub fn to_json(&self, maker: &str) -> Value {
        let texts = |targets: &[Target]| targets.iter().map(|t| Value::from(t.text())).collect::<Vec<_>>();
        let args = |args: &Option<QuantArgs>| args.as_ref().map_or(Value::Null, QuantArgs::to_json);
        let group = |group: &ConfigGroup| {
            let format = group.format.as_ref().unwrap_or(&self.format);
            let value = json!({
                "targets": texts(&group.targets),
                "weights": args(&group.weights),
                "input_activations": args(&group.input_activations),
                "output_activations": null,
                "format": format.name(),
            });
            (group.name.clone(), value)
        };
        json!({
            "quant_method": "compressed-tensors",
            "format": self.format.name(),
            "quantization_status": "compressed",
            "global_compression_ratio": null,
            "kv_cache_scheme": null,
            "ignore": texts(&self.ignore),
            "config_groups": self.groups.iter().map(group).collect::<Map<_, _>>(),
            "sparsity_config": {},
            "transform_config": transform::to_json(&self.transforms),
            "version": maker,
        })
    }

    /// Whether what a linear layer reads is to be rotated while the model runs; then the size of a block, `None` for the whole row.
    ///
    /// # Errors
    /// [`CheckpointError::Unsupported`] for more than one rotation.
    pub fn input_rotation(&self, module: &str) -> Result<Option<Option<usize>>> {
        let mut found = self.transforms.iter().filter(|t| t.matches(module));
        let first = found.next();
        if let (Some(first), Some(second)) = (first, found.next()) {
            let found = format!("{} and {} of {module}", first.name, second.name);
            return Err(unsupported("transform_config", &found, "one rotation of an input"));
        }
        Ok(first.map(|t| t.block))
    }

    /// The group that a linear layer belongs to; `None` if it is left in full precision.
    pub fn group(&self, module: &str) -> Option<&ConfigGroup> {
        if self.ignore.iter().any(|t| t.matches(module) || t.is_linear()) {
            return None;
        }
        let named = self.groups.iter().find(|g| g.targets.iter().any(|t| t.matches(module)));
        named.or_else(|| self.groups.iter().find(|g| g.targets.iter().any(Target::is_linear)))
    }

    /// How a linear layer of format `pack-quantized` is stored by this config; `None` if it is left in full precision.
    ///
    /// # Errors
    /// [`CheckpointError::Unsupported`] for another format, quantized activations, and weights that are no integers of 2 to 8 bits with a scale per group
    /// or row.
    pub fn module(&self, name: &str) -> Result<Option<ModuleSpec>> {
        match self.storage(name)? {
            None => Ok(None),
            Some(Storage::Packed(spec)) => Ok(Some(spec)),
            Some(Storage::EightBit(spec)) => {
                Err(unsupported("format", eight_bit::format(spec.code).name(), "pack-quantized"))
            }
        }
    }

    /// How a linear layer is stored by this config; `None` if it is left in full precision.
    ///
    /// # Errors
    /// [`CheckpointError::Unsupported`] for other formats than those of [`Storage`], and for what these do not have: quantized activations beside packed
    /// weights, a scale per group beside weights of one byte, activations of another type than the weights, of other than 8 bits, or with scales per group.
    pub fn storage(&self, name: &str) -> Result<Option<Storage>> {
        self.group(name).map_or(Ok(None), |group| self.storage_of(group))
    }

    /// Checks that modules of every group can be read here.
    ///
    /// # Errors
    /// As [`Config::storage`].
    pub fn check_groups(&self) -> Result<()> {
        self.groups.iter().try_for_each(|group| self.storage_of(group).map(drop))
    }

    fn storage_of(&self, group: &ConfigGroup) -> Result<Option<Storage>> {
        let format = group.format.as_ref().unwrap_or(&self.format);
        match (&group.weights, format) {
            (None, _) => Ok(None),
            (Some(weights), Format::PackQuantized) => {
                Self::packed_spec(group, weights).map(|s| Some(Storage::Packed(s)))
            }
            (Some(weights), Format::IntQuantized | Format::FloatQuantized | Format::NaiveQuantized) => {
                eight_bit::spec(group, weights, format).map(|s| Some(Storage::EightBit(s)))
            }
            (Some(_), other) => {
                Err(unsupported("format", other.name(), "pack-quantized, int-quantized or float-quantized"))
            }
        }
    }

    fn packed_spec(group: &ConfigGroup, weights: &QuantArgs) -> Result<ModuleSpec> {
        if group.input_activations.is_some() {
            return Err(unsupported("input_activations", "quantized", "none"));
        }
        let key = |key: &str| format!("config_groups: {}: weights: {key}", group.name);
        let group_size = match weights.strategy {
            Strategy::Channel => None,
            Strategy::Group(size) => Some(size),
            other => return Err(unsupported(&key("strategy"), &format!("{other:?}"), "group and channel")),
        };
        let bits = Bits::new(weights.num_bits).filter(|_| weights.number_type == NumberType::Int);
        let Some(bits) = bits else {
            let found = format!("{} bits, {:?}", weights.num_bits, weights.number_type);
            return Err(unsupported(&key("num_bits"), &found, "2 to 8 bits, int"));
        };
        if weights.dynamic {
            return Err(unsupported(&key("dynamic"), "true", "false"));
        }
        let QuantArgs { symmetric, act_order, .. } = *weights;
        Ok(ModuleSpec { bits, group_size, symmetric, act_order })
    }

    /// Checks that readers of this config will read `matrix` rightly as the module `name`.
    ///
    /// # Errors
    /// [`CheckpointError::NotStorable`] for a module that is left in full precision, other bits or groups than the config's, a zero point off the
    /// middle where it says symmetric, and groups in another order than the columns; what [`Config::module`] refuses.
    pub fn check(&self, name: &str, matrix: &AffineMatrix) -> Result<ModuleSpec> {
        let no = |why: String| Err(CheckpointError::NotStorable { why: format!("module `{name}`: {why}") });
        let Some(spec) = self.module(name)? else {
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
        if spec.symmetric && !matrix.is_symmetric() {
            return no("zero points off the middle, symmetric in the config".into());
        }
        Ok(spec)
    }

    /// Checks that readers of this config will read `matrix`, whose input has these static scales, rightly as the module `name`.
    ///
    /// # Errors
    /// [`CheckpointError::NotStorable`] for a module that is left in full precision or packed, codes of another kind than the config's, zero points where
    /// it says symmetric, static scales missing or too many; what [`Config::storage`] refuses.
    pub fn check_eight_bit(
        &self,
        name: &str,
        matrix: &EightBitMatrix,
        input: Option<&StaticScales>,
    ) -> Result<EightBitSpec> {
        let no = |why: &str| Err(CheckpointError::NotStorable { why: format!("module `{name}`: {why}") });
        let spec = match self.storage(name)? {
            None => return no("the config leaves it in full precision"),
            Some(Storage::Packed(_)) => return no("the config says pack-quantized"),
            Some(Storage::EightBit(spec)) => spec,
        };
        if spec.code != matrix.code() {
            return no("whole numbers and floats: the config says the other");
        }
        if spec.symmetric && matrix.zeros().is_some() {
            return no("zero points, symmetric in the config");
        }
        if !spec.per_row && matrix.scales().iter().any(|scale| Some(scale) != matrix.scales().first()) {
            return no("scales that differ from row to row, one for all in the config");
        }
        match (spec.is_static(), input) {
            (true, None) => no("no scale of its input, which the config says is static"),
            (false, Some(_)) => no("a scale of its input, which the config does not say is static"),
            _ => Ok(spec),
        }
    }
}

impl ConfigGroup {
    /// A group of format `pack-quantized`.
    pub fn packed(name: &str, targets: Vec<Target>, bits: Bits, group_size: Option<usize>, symmetric: bool) -> Self {
        let weights = QuantArgs {
            num_bits: bits.get(),
            number_type: NumberType::Int,
            symmetric,
            strategy: group_size.map_or(Strategy::Channel, Strategy::Group),
            dynamic: false,
            act_order: false,
        };
        Self {
            name: name.to_owned(),
            targets,
            weights: Some(weights),
            input_activations: None,
            format: Some(Format::PackQuantized),
        }
    }

    /// A group of format `int-quantized` or `float-quantized`.
    pub fn eight_bit(name: &str, targets: Vec<Target>, spec: &EightBitSpec) -> Self {
        let (weights, input_activations) = eight_bit::args(spec);
        let format = Some(eight_bit::format(spec.code));
        Self { name: name.to_owned(), targets, weights: Some(weights), input_activations, format }
    }

    fn from_json(name: &str, json: &Value, count: usize) -> Result<Self> {
        let path = format!("config_groups: {name}");
        let Value::Object(map) = json else { return Err(wrong(&path, "an object", json)) };
        let keys = Keys { map, path: &path };
        let args = |key: &str| keys.get(key).map(|v| QuantArgs::from_json(&keys.name(key), v)).transpose();
        if let Some(output) = keys.get("output_activations") {
            return Err(unsupported(&keys.name("output_activations"), &output.to_string(), "none"));
        }
        let targets = match keys.get("targets") {
            Some(Value::Array(targets)) => list(&keys.name("targets"), targets, count)?,
            other => return Err(wrong(&keys.name("targets"), "a list", other.unwrap_or(&Value::Null))),
        };
        Ok(Self {
            name: name.to_owned(),
            targets,
            weights: args("weights")?,
            input_activations: args("input_activations")?,
            format: keys.text("format")?.map(Format::from_name),
        })
    }
}

fn list(key: &str, values: &[Value], count: usize) -> Result<Vec<Target>> {
    let target = |v: &Value| {
        let text = v.as_str().ok_or_else(|| wrong(key, "strings", v))?;
        Target::new(key, text, count)
    };
    values.iter().map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four() -> Bits {
        Bits::new(4).unwrap()
    }

    fn with(change: Value) -> Result<Config> {
        let mut json = Config::packed(four(), Some(128), true).to_json("a:1");
        json.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        Config::from_json(&json)
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut config = Config::packed(four(), None, false);
        let pattern = Target::new("", "re:.*down_proj", 1).unwrap();
        config.groups.insert(0, ConfigGroup::packed("down", vec![pattern], Bits::new(8).unwrap(), Some(32), true));
        config.ignore.push(Target::Name("model.layers.1.mlp.down_proj".into()));
        config.version = Some("a:1".into());
        let text = config.to_json("a:1").to_string();
        assert_eq!(Config::from_json(&serde_json::from_str(&text).unwrap()).unwrap(), config);
    }

    /// A group that names a module comes before one that names its class, `ignore` before both.
    #[test]
    fn which_group() {
        let mut config = Config::packed(four(), Some(128), true);
        let target = |text: &str| Target::new("", text, 3).unwrap();
        let eight = Bits::new(8).unwrap();
        config.groups.push(ConfigGroup::packed("g1", vec![target("re:.*down_proj"), target("a.b")], eight, None, true));
        config.ignore.push(target("re:model\\.layers\\.1\\."));
        let bits = |name: &str| config.module(name).unwrap().map(|spec| (spec.bits.get(), spec.group_size));
        for (name, expected) in [
            ("model.layers.0.mlp.up_proj", Some((4, Some(128)))),
            ("model.layers.0.mlp.down_proj", Some((8, None))),
            ("a.b", Some((8, None))),
            ("a.b.c", Some((4, Some(128)))),
            ("model.layers.1.mlp.down_proj", None),
            ("model.layers.10.mlp.up_proj", Some((4, Some(128)))),
            ("lm_head", None),
        ] {
            assert_eq!(bits(name), expected, "{name}");
        }
        config.groups.remove(0);
        assert_eq!(config.module("model.layers.0.mlp.up_proj").unwrap(), None, "no group names it");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let weights = |change: Value| {
            let mut group = Config::packed(four(), Some(128), true).to_json("")["config_groups"].clone();
            group["group_0"]["weights"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({"config_groups": group})
        };
        let group = |change: Value| {
            let mut group = Config::packed(four(), Some(128), true).to_json("")["config_groups"].clone();
            group["group_0"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({"config_groups": group})
        };
        for (change, words) in [
            (json!({"quant_method": "awq"}), &["`quant_method` awq"][..]),
            (json!({"quantization_status": "frozen"}), &["`quantization_status` frozen"]),
            (json!({"format": null}), &["`format`", "a string"]),
            (json!({"config_groups": []}), &["`config_groups`", "an object"]),
            (json!({"config_groups": {"g": 1}}), &["`config_groups: g`"]),
            (json!({"transform_config": {"r": 1}}), &["`transform_config`", "config_groups"]),
            (json!({"sparsity_config": {"format": "sparse-24"}}), &["`sparsity_config`", "sparse-24"]),
            (json!({"kv_cache_scheme": {"num_bits": 8}}), &["`kv_cache_scheme`"]),
            (json!({"ignore": "lm_head"}), &["`ignore`", "a list"]),
            (json!({"ignore": ["re:("]}), &["`ignore: re:(`", "regular expression"]),
            (json!({"ignore": [4]}), &["`ignore`", "strings"]),
            (json!({"ignore": vec!["x"; MAX_PATTERNS]}), &["at most 16384 targets", "found 16385"]),
            (group(json!({"targets": null})), &["`config_groups: group_0: targets`", "a list"]),
            (group(json!({"output_activations": {}})), &["output_activations"]),
            (group(json!({"input_activations": 4})), &["`config_groups: group_0: input_activations`", "an object"]),
            (weights(json!({"num_bits": 0})), &["num_bits`", "1 to 32"]),
            (weights(json!({"num_bits": "4"})), &["num_bits`", "a whole number"]),
            (weights(json!({"type": "complex"})), &["type`", "int or float"]),
            (weights(json!({"strategy": "row"})), &["strategy`", "row"]),
            (weights(json!({"group_size": 0})), &["group_size`", "a positive number"]),
            (weights(json!({"strategy": "block", "block_structure": [128]})), &["block_structure`"]),
            (weights(json!({"actorder": "odd"})), &["actorder`", "odd"]),
            (weights(json!({"symmetric": 1})), &["symmetric`", "true or false"]),
        ] {
            let message = with(change.clone()).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{change}: {message}: {word}");
            }
        }
        assert!(Config::from_json(&json!([4])).unwrap_err().to_string().contains("an object"));
        // Read, but not to be unpacked here.
        for (change, words) in [
            (
                json!({"format": "int-quantized", "config_groups": {"g": {"targets": ["Linear"], "weights": {}}}}),
                "`format` int-quantized is not supported: pack-quantized is",
            ),
            (group(json!({"format": "marlin-24"})), "`format` marlin-24"),
            (group(json!({"input_activations": {"num_bits": 8}})), "`input_activations`"),
            (weights(json!({"type": "float"})), "num_bits` 4 bits, Float"),
            (weights(json!({"num_bits": 1})), "num_bits` 1 bits"),
            (weights(json!({"strategy": "tensor"})), "strategy` Tensor"),
            (weights(json!({"strategy": "block", "block_structure": [128, 128]})), "strategy` Block"),
            (weights(json!({"dynamic": true})), "dynamic` true"),
        ] {
            let message = with(change.clone()).unwrap().module("m").unwrap_err().to_string();
            assert!(message.contains(words), "{change}: {message}");
        }
        // The library's rules where no strategy is given.
        for (size, strategy) in
            [(json!(null), Strategy::Tensor), (json!(-1), Strategy::Channel), (json!(64), Strategy::Group(64))]
        {
            let config = with(weights(json!({"strategy": null, "group_size": size}))).unwrap();
            assert_eq!(config.groups[0].weights.as_ref().unwrap().strategy, strategy);
        }
    }
}
