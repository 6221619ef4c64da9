//! What is to be done to each module.

use crate::calibrate::CalibrationSet;
use crate::checkpoint::{PackedConfig, hf_name};
use crate::model::{LayerWalk, LinearSite};
use crate::{Error, Result};
use gptq::checkpoint::{DynamicRule, GptqConfig, ModuleSpec, ZeroPoint};
use gptq::{Options, Order};
use std::collections::BTreeMap;
use std::path::Path;

/// How a model is quantized.
#[derive(Clone, Debug)]
pub struct GptqPlan {
    /// Of every module that no rule says otherwise of.
    pub options: Options,
    /// Overrides by module name (`model.layers.0.mlp.up_proj`), the first that matches counts.
    pub rules: Vec<DynamicRule>,
    /// Convention of the zero points on disk; `None`: `gptq` for symmetric grids, `gptq_v2` for others.
    pub zero_point: Option<ZeroPoint>,
    /// Written as compressed-tensors has it (`pack-quantized`), not in GPTQ's layout.
    pub compressed_tensors: bool,
    /// Round to nearest, without sequences: what GPTQ is to be compared with.
    pub round_to_nearest: bool,
    /// The most that one calibration row counts, in medians of its sequence's squared norms; `None`: every row in full. The first token of a sequence
    /// often has activations a thousand times those of all others, at which its output hardly matters; in full it would decide every scale.
    pub row_limit: Option<f32>,
    /// Replace a target that holds a model.
    pub overwrite: bool,
    /// Go on where an earlier run with the same source, plan and sequences was cut short.
    pub resume: bool,
    /// Bytes that the inputs of the down projection may take; beyond it they are computed twice.
    pub activation_memory: u64,
}

/// One module.
#[derive(Clone, Debug)]
pub(super) struct Module {
    /// As the directory has it.
    pub(super) name: String,
    /// As GGUF has it.
    pub(super) gguf_name: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// `None`: in full precision.
    pub(super) options: Option<Options>,
}

/// The modules of each input.
pub(super) type Modules = BTreeMap<LinearSite, Vec<Module>>;

impl GptqPlan {
    /// All modules alike, resumable, never over an existing target, inputs of down kept if they take less than 1 GiB.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            rules: Vec::new(),
            zero_point: None,
            compressed_tensors: false,
            round_to_nearest: false,
            row_limit: Some(4.0),
            overwrite: false,
            resume: true,
            activation_memory: 1 << 30,
        }
    }

    /// The config that the directory gets.
    pub(super) fn config(&self) -> GptqConfig {
        let options = &self.options;
        let mut config = GptqConfig::new(options.bits, options.group_size, options.symmetric);
        config.desc_act = options.order == (Order::DescAct { static_groups: false });
        config.static_groups = options.order == (Order::DescAct { static_groups: true });
        config.zero_point = self.zero_point.unwrap_or(config.zero_point);
        config.damp_percent = Some(options.damp);
        config.dynamic = self.rules.clone();
        config
    }

    /// How the directory is stored.
    ///
    /// # Errors
    /// [`Error::Usage`] for what compressed-tensors has no place for.
    pub(super) fn layout(&self) -> Result<PackedConfig> {
        let config = self.config();
        if !self.compressed_tensors {
            return Ok(config.into());
        }
        PackedConfig::compressed_tensors_of(&config).map_err(|e| Error::Usage(e.to_string()))
    }

    fn of_module(&self, spec: &ModuleSpec) -> Options {
        let mut options = self.options;
        (options.bits, options.group_size, options.symmetric) = (spec.bits, spec.group_size, spec.sym);
        let needs_g_idx = options.order == (Order::DescAct { static_groups: false });
        if needs_g_idx && !spec.desc_act {
            options.order = Order::default();
        } else if spec.desc_act {
            options.order = Order::DescAct { static_groups: false };
        }
        options
    }

    /// Every module, after checking that its layout can hold it.
    pub(super) fn modules(&self, walk: &LayerWalk<'_>, source: &Path) -> Result<Modules> {
        let config = self.config();
        let mut all = Modules::new();
        let sites = (0..walk.config().num_layers).flat_map(|l| {
            [
                LinearSite::AttentionInput(l),
                LinearSite::AttentionOutput(l),
                LinearSite::FfnInput(l),
                LinearSite::FfnDown(l),
            ]
        });
        let mut any = false;
        for site in sites {
            for (gguf_name, rows, cols) in walk.linears(site) {
                let tensor = hf_name(&gguf_name).unwrap_or_default();
                let name = tensor.trim_end_matches(".weight").to_owned();
                let options = config.module(&name).map(|spec| self.of_module(&spec));
                if let Some(options) = &options {
                    any = true;
                    check_shape(rows, cols, options).map_err(|why| {
                        Error::Usage(format!("{}: module `{name}` [{rows}, {cols}]: {why}", source.display()))
                    })?;
                }
                all.entry(site).or_default().push(Module { name, gguf_name, rows, cols, options });
            }
        }
        if !any {
            return Err(Error::Usage("the rules leave every module in full precision".to_owned()));
        }
        Ok(all)
    }

    /// What decides the result, besides the source.
    pub(super) fn fingerprint(&self, set: Option<&CalibrationSet>) -> String {
        let tokens = match set {
            Some(set) if !self.round_to_nearest => {
                let lengths: Vec<usize> = set.sequences.iter().map(Vec::len).collect();
                format!("{} {lengths:?}", set.tokens_sha256())
            }
            _ => "rounded to nearest".to_owned(),
        };
        format!("{:?}\n{:?}\n{:?}\n{tokens}", self.options, self.rules, self.row_limit)
    }
}

fn check_shape(rows: usize, cols: usize, options: &Options) -> Result<(), String> {
    if let Some(group) = options.group_size
        && group < cols
        && !cols.is_multiple_of(group)
    {
        let fitting: Vec<String> =
            [16, 32, 64, 128].iter().filter(|&g| cols.is_multiple_of(*g)).map(ToString::to_string).collect();
        let fitting = if fitting.is_empty() { "only -1".to_owned() } else { format!("-1, {}", fitting.join(", ")) };
        return Err(format!("groups of {group} do not divide its input ({fitting} would)"));
    }
    // GPTQModel's check, whatever the bits (`gptq::checkpoint::loads_in` says the same of files).
    if !rows.is_multiple_of(32) || !cols.is_multiple_of(32) {
        return Err("readers of the layout need multiples of 32; a rule can leave it in full precision".to_owned());
    }
    Ok(())
}
