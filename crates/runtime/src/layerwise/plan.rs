//! What is to be done to each module.

use super::observe::layer_sites;
use crate::calibrate::CalibrationSet;
use crate::checkpoint::{PackedConfig, hf_name};
use crate::fold::Rotations;
use crate::model::{LayerWalk, LinearSite};
use crate::{Error, ModelConfig, Result};
use activation_quant::SmoothOptions;
use awq::checkpoint::AwqConfig;
use compressed_tensors::{Config, EightBitSpec, InputHadamard, Target};
use gptq::checkpoint::{DynamicRule, GptqConfig, ModuleSpec, ZeroPoint, is_stored_width};
use gptq::{Options, Order};
use quant_core::activation::{ActivationGrid, RangeMethod};
use quant_core::eight_bit::EightBitCode;
use std::collections::BTreeMap;
use std::path::Path;

pub use compressed_tensors::{ActivationSpec, InputScales};

/// How matrices get their codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rounding {
    /// To nearest, without sequences: what the methods are to be compared with. Bits, groups and symmetry are those of the options.
    Nearest(Options),
    /// With error feedback.
    Gptq(Options),
    /// To nearest, on grids that may span less than the range of the weights.
    Awq(AwqRounding),
}

/// AWQ's rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AwqRounding {
    /// Bits, groups, zero points, margin.
    pub options: awq::Options,
    /// Search how much of a group's range its grid spans.
    pub clip: bool,
    /// For q and k too. A softmax follows, of which the loss knows nothing.
    pub clip_qk: bool,
}

/// What is rotated ([`crate::fold::Rotations`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// Nothing.
    #[default]
    None,
    /// What the weights can hold: the residual stream and values. The directory is as any other.
    Folded,
    /// What down reads too, while the model runs, as `transform_config` of compressed-tensors says.
    WithDown,
}

impl Rotation {
    /// Of a model.
    pub fn of(self, config: &ModelConfig) -> Rotations {
        match self {
            Self::None => Rotations::none(),
            Self::Folded => Rotations::folded(config),
            Self::WithDown => Rotations::with_down(config),
        }
    }
}

/// The group of `transform_config` (QuaRot and SpinQuant count that rotation as the fourth).
const DOWN_ROTATION: &str = "R4";

/// How a directory stores quantized modules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// As GPTQ tools do. `None`: `gptq` for symmetric grids, `gptq_v2` for others.
    Gptq(Option<ZeroPoint>),
    /// As AutoAWQ does (`gemm`): 4 bits.
    Awq,
    /// As vLLM does (`pack-quantized`).
    CompressedTensors,
    /// One byte a weight with a scale per row, for products with 8-bit activations (`int-quantized`, `float-quantized`). Bits, groups and symmetry of the
    /// rounding's options do not count.
    EightBit(W8A8),
}

/// What weights and activations of 8 bits are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct W8A8 {
    /// Of a weight.
    pub code: EightBitCode,
    /// Of activations, and where their scales come from; `None` leaves them in full precision.
    pub activations: Option<ActivationSpec>,
    /// How much of what the calibration showed a static scale spans.
    pub range: RangeMethod,
}

impl W8A8 {
    /// Symmetric, activations with a dynamic scale per token.
    pub fn dynamic(code: EightBitCode) -> Self {
        let grid = match code {
            EightBitCode::Int8 => ActivationGrid::Int8 { symmetric: true },
            EightBitCode::E4M3 => ActivationGrid::E4M3,
        };
        let activations = Some(ActivationSpec { grid, scales: InputScales::Token });
        Self { code, activations, range: RangeMethod::Max }
    }

    /// The grid of inputs with static scales.
    pub(super) fn static_grid(&self) -> Option<ActivationGrid> {
        self.activations.filter(|a| a.scales == InputScales::Static).map(|a| a.grid)
    }
}

/// How a model is quantized.
#[derive(Clone, Debug)]
pub struct LayerwisePlan {
    /// Of every module that no rule says otherwise of.
    pub rounding: Rounding,
    /// Search AWQ's scales before rounding, and fold them into the model. Of the options only `grid`, `grid_rows` and `margin` count; the grid is the
    /// module's.
    pub scales: Option<awq::Options>,
    /// Rotate the model before all else.
    pub rotation: Rotation,
    /// Search SmoothQuant's scales of the rotated model, and fold them into it: instead of AWQ's.
    pub smooth: Option<SmoothOptions>,
    /// Judge scales of q/k/v and gate/up by the output of attention and of the feed-forward part on up to four sequences that are kept back, instead of
    /// by the Gram loss of their linears, which knows nothing of softmax and SiLU. Slower.
    pub block_loss: bool,
    /// Overrides by module name (`model.layers.0.mlp.up_proj`), the first that matches counts.
    pub rules: Vec<DynamicRule>,
    /// How the directory stores modules.
    pub layout: Layout,
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
    pub(super) spec: Option<ModuleSpec>,
}

/// The modules of each input.
pub(super) type Modules = BTreeMap<LinearSite, Vec<Module>>;

impl LayerwisePlan {
    /// GPTQ of all modules alike, in its layout.
    pub fn gptq(options: Options) -> Self {
        Self::new(Rounding::Gptq(options), None)
    }

    /// GPTQ of all modules alike, on AWQ's scales. Error feedback makes good much of what scales save, so they are judged by what GPTQ leaves of them.
    pub fn gptq_on_scales(options: Options) -> Self {
        let mut scales = awq::Options::new(options.bits, options.group_size);
        scales.zero_point = !options.symmetric;
        // What counts is judged as it is, on sequences kept back.
        scales.margin = 0.0;
        Self::new(Rounding::Gptq(options), Some(scales))
    }

    /// AWQ of all modules alike, scales and clip, in its layout where that has the bits (4), else in GPTQ's.
    pub fn awq(options: awq::Options) -> Self {
        let mut plan = Self::new(Rounding::Awq(AwqRounding { options, clip: true, clip_qk: false }), Some(options));
        if options.bits.get() == 4 {
            plan.layout = Layout::Awq;
        }
        plan
    }

    /// All modules alike, resumable, never over an existing target, inputs of down kept if they take less than 1 GiB.
    pub fn new(rounding: Rounding, scales: Option<awq::Options>) -> Self {
        Self {
            rounding,
            scales,
            rotation: Rotation::None,
            smooth: None,
            block_loss: false,
            rules: Vec::new(),
            layout: Layout::Gptq(None),
            row_limit: Some(4.0),
            overwrite: false,
            resume: true,
            activation_memory: 1 << 30,
        }
    }

    /// Whether calibration sequences are needed.
    pub fn calibrates(&self) -> bool {
        self.smooth.is_some() || self.runs_sequences()
    }

    /// Whether they are run while layers are quantized.
    pub(super) fn runs_sequences(&self) -> bool {
        match self.rounding {
            Rounding::Nearest(_) => self.scales.is_some() || self.static_inputs().is_some(),
            Rounding::Gptq(_) => true,
            Rounding::Awq(awq) => self.scales.is_some() || awq.clip,
        }
    }

    /// Where inputs get static scales: their grid, and how much of what is seen it spans.
    pub(super) fn static_inputs(&self) -> Option<(ActivationGrid, RangeMethod)> {
        match self.layout {
            Layout::EightBit(w8a8) => w8a8.static_grid().map(|grid| (grid, w8a8.range)),
            _ => None,
        }
    }

    /// How the directory is stored.
    ///
    /// # Errors
    /// [`Error::Usage`] for what the layout has no place for.
    pub(super) fn packed_config(&self, rotations: &Rotations) -> Result<PackedConfig> {
        if self.smooth.is_some() && (self.scales.is_some() || matches!(self.rounding, Rounding::Awq(_))) {
            return Err(Error::Usage("SmoothQuant's scales or AWQ's, not both".to_owned()));
        }
        let mut config = self.layout_config()?;
        if let Some(rotation) = rotations.down() {
            let PackedConfig::CompressedTensors(config) = &mut config else {
                let why = "the layout has no place for a rotation while the model runs; compressed-tensors' has";
                return Err(Error::Usage(why.to_owned()));
            };
            let target =
                Target::new("rotation", "re:.*mlp\\.down_proj$", 1).map_err(|e| Error::Usage(e.to_string()))?;
            let (name, block) = (DOWN_ROTATION.to_owned(), Some(rotation.block()));
            config.transforms.push(InputHadamard { name, targets: vec![target], ignore: Vec::new(), block });
        }
        Ok(config)
    }

    fn layout_config(&self) -> Result<PackedConfig> {
        let config = self.config();
        match self.layout {
            Layout::Gptq(_) => {
                let others = config.dynamic.iter().filter_map(|rule| rule.overrides()?.bits);
                match others.chain([config.bits]).find(|bits| !is_stored_width(*bits)) {
                    None => Ok(config.into()),
                    Some(bits) => {
                        let why = "GPTQ's layout takes 2, 3, 4 or 8 bits";
                        Err(Error::Usage(format!("{why}, not {bits}; compressed-tensors' takes 2 to 8")))
                    }
                }
            }
            Layout::EightBit(w8a8) => {
                let mut made = Config::eight_bit(&EightBitSpec::new(w8a8.code, w8a8.activations));
                for rule in &config.dynamic {
                    if rule.overrides().is_some() {
                        return Err(Error::Usage("weights of one byte have one setting for all modules".to_owned()));
                    }
                    let target = Target::new("rule", &format!("re:{}", rule.pattern()), config.dynamic.len());
                    made.ignore.push(target.map_err(|e| Error::Usage(e.to_string()))?);
                }
                Ok(made.into())
            }
            Layout::CompressedTensors => {
                PackedConfig::compressed_tensors_of(&config).map_err(|e| Error::Usage(e.to_string()))
            }
            Layout::Awq => {
                if config.bits.get() != 4 {
                    return Err(Error::Usage(format!("AWQ's layout has 4 bits, not {}", config.bits)));
                }
                if config.desc_act || config.dynamic.iter().any(|rule| rule.overrides().is_some()) {
                    let why = "AWQ's layout has one setting for all modules, and no order of columns";
                    return Err(Error::Usage(why.to_owned()));
                }
                // Zero points are stored in any case, and a reader that is told so needs no other kernel for a symmetric grid.
                Ok(AwqConfig::new(config.bits, config.group_size, true).into())
            }
        }
    }

    /// What is asked for, in GPTQ's terms: bits, groups and rules.
    pub(super) fn config(&self) -> GptqConfig {
        let mut config = match &self.rounding {
            Rounding::Nearest(o) => GptqConfig::new(o.bits, o.group_size, o.symmetric),
            Rounding::Awq(awq) => GptqConfig::new(awq.options.bits, awq.options.group_size, !awq.options.zero_point),
            Rounding::Gptq(o) => {
                let mut config = GptqConfig::new(o.bits, o.group_size, o.symmetric);
                config.desc_act = o.order == (Order::DescAct { static_groups: false });
                config.static_groups = o.order == (Order::DescAct { static_groups: true });
                config.damp_percent = Some(o.damp);
                config
            }
        };
        if let Layout::Gptq(Some(zero_point)) = self.layout {
            config.zero_point = zero_point;
        }
        config.dynamic = self.rules.clone();
        config
    }

    /// Every module, after checking that its layout can hold it.
    pub(super) fn modules(&self, walk: &LayerWalk<'_>, source: &Path) -> Result<Modules> {
        let config = self.config();
        let mut all = Modules::new();
        let mut any = false;
        for site in (0..walk.config().num_layers).flat_map(layer_sites) {
            for (gguf_name, rows, cols) in walk.linears(site) {
                let tensor = hf_name(&gguf_name).unwrap_or_default();
                let name = tensor.trim_end_matches(".weight").to_owned();
                let spec = config.module(&name);
                if let Some(spec) = &spec {
                    any = true;
                    let fits = match self.layout {
                        Layout::EightBit(_) => check_columns(cols),
                        _ => check_shape(rows, cols, spec.group_size),
                    };
                    fits.map_err(|why| {
                        Error::Usage(format!("{}: module `{name}` [{rows}, {cols}]: {why}", source.display()))
                    })?;
                }
                all.entry(site).or_default().push(Module { name, gguf_name, rows, cols, spec });
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
            Some(set) if self.calibrates() => {
                let lengths: Vec<usize> = set.sequences.iter().map(Vec::len).collect();
                format!("{} {lengths:?}", set.tokens_sha256())
            }
            _ => "rounded to nearest".to_owned(),
        };
        let scales = (&self.scales, self.block_loss, self.rotation, &self.smooth);
        format!("{:?} {:?}\n{scales:?}\n{:?}\n{:?}\n{tokens}", self.layout, self.rounding, self.rules, self.row_limit)
    }
}

/// The plan's options for one module.
pub(super) fn gptq_options(options: &Options, spec: &ModuleSpec) -> Options {
    let mut options = *options;
    (options.bits, options.group_size, options.symmetric) = (spec.bits, spec.group_size, spec.sym);
    let needs_g_idx = options.order == (Order::DescAct { static_groups: false });
    if needs_g_idx && !spec.desc_act {
        options.order = Order::default();
    } else if spec.desc_act {
        options.order = Order::DescAct { static_groups: false };
    }
    options
}

/// The plan's options for one module.
pub(super) fn awq_options(options: &awq::Options, spec: &ModuleSpec) -> awq::Options {
    let mut options = *options;
    (options.bits, options.group_size, options.zero_point) = (spec.bits, spec.group_size, !spec.sym);
    options
}

fn check_columns(cols: usize) -> Result<(), String> {
    // Sums of that many products of bytes fit 32 bits.
    match cols {
        ..=0x1_0000 => Ok(()),
        _ => Err("integer products take at most 65536 columns; a rule can leave it in full precision".to_owned()),
    }
}

fn check_shape(rows: usize, cols: usize, group_size: Option<usize>) -> Result<(), String> {
    if let Some(group) = group_size
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
