//! `quant perplexity`: perplexity, and divergence from a base.

use crate::cache_args::CacheArgs;
use crate::error::{CliError, CliResult};
use crate::output::{print_json, to_stdout};
use crate::{input, progress, table};
use quant_runtime::eval::{EvalPlan, EvalReport, LogitSource, LogitsFile, LogitsWriter, ModelLogits, evaluate};
use quant_runtime::{Activations, CacheNoise, Error, Tokenizer};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Measure perplexity, and with --base the divergence from another model.
///
/// The protocol is llama-perplexity's: the text in chunks of --ctx tokens, the second half of each scored. With --base LOGITS the
/// tokens in that file are evaluated, in sequences as the file says (or of --ctx tokens, or one), and TEXT may be left out.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// GGUF file, or directory with safetensors.
    model: PathBuf,
    /// Text file, UTF-8; line ends are read as LF.
    #[arg(required_unless_present = "base")]
    text: Option<PathBuf>,
    /// Tokens of a chunk [default: 512].
    #[arg(long, value_name = "N")]
    ctx: Option<usize>,
    /// Chunks to run [default: all].
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// What to compare with: a model, or a safetensors file of `tokens` and `logits` (one row of the vocabulary per token).
    #[arg(long, value_name = "MODEL|LOGITS")]
    base: Option<PathBuf>,
    /// Write all logits to this file: 4·tokens·vocab bytes.
    #[arg(long, value_name = "F.safetensors")]
    save_logits: Option<PathBuf>,
    /// Activations of MODEL's products: rounded where the model says so (W8A8), never, as `quant run` rounds them, or as llama.cpp does, which foretells
    /// its figures. A base model's are as it says, and its cache is not quantized.
    #[arg(long, value_enum, default_value = "model")]
    activations: ActivationsArg,
    #[command(flatten)]
    cache: CacheArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum ActivationsArg {
    Model,
    F32,
    /// As `quant run` rounds them: 8 bits in blocks of 32 for the quick products of integers.
    Int8,
    Ggml,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let cache = self.cache.choice()?;
        let mut logits_base = match &self.base {
            Some(path) if path.is_file() && LogitsFile::is_safetensors(path) => Some(LogitsFile::open(path)?),
            _ => None,
        };
        if self.text.is_none() && logits_base.is_none() {
            return Err(CliError::Usage("a TEXT is needed: the base is not a file of logits".to_owned()));
        }
        let text = self.text.as_deref().map(input::read_text).transpose()?;
        let (mut model, tokenizer) = input::load(&self.model)?;
        model.set_activations(match self.activations {
            ActivationsArg::Model | ActivationsArg::Int8 => Activations::Model,
            ActivationsArg::F32 => Activations::F32,
            ActivationsArg::Ggml => Activations::Ggml,
        })?;
        model.set_integer_products(matches!(self.activations, ActivationsArg::Int8));
        let context = model.config().max_context;
        let text_plan = match &text {
            Some(text) if logits_base.is_none() => {
                Some(self.plan_of_text(text, &tokenizer, self.ctx.unwrap_or(512))?)
            }
            _ => None,
        };
        let plan = match (text_plan, &mut logits_base) {
            (Some(plan), _) => plan,
            (None, Some(file)) => {
                let plan = EvalPlan::from_logits(file, self.ctx, self.chunks)?;
                if let Some(text) = &text {
                    self.compare_with_text(&plan, text, &tokenizer, file.path());
                }
                plan
            }
            (None, None) => return Err(CliError::Usage("a TEXT is needed".to_owned())),
        };
        if plan.ctx() > context {
            return Err(Error::Usage(format!(
                "sequences of {} tokens do not fit the model's context of {context}",
                plan.ctx()
            ))
            .into());
        }
        let base_model = match (&self.base, &logits_base) {
            (Some(path), None) => Some(input::load_model(path)?),
            _ => None,
        };
        let mut base_source = base_model.as_ref().map(ModelLogits::new);
        let base: Option<&mut dyn LogitSource> = match (&mut logits_base, &mut base_source) {
            (Some(file), _) => Some(file),
            (None, Some(model)) => Some(model),
            (None, None) => None,
        };
        let mut writer = match &self.save_logits {
            Some(path) => Some(LogitsWriter::create(path, &plan, model.config().vocab_size)?),
            None => None,
        };
        if let (Some(path), Some(writer)) = (&self.save_logits, &writer) {
            eprintln!("logits: {:.1} MB to {}", writer.file_len() as f64 / 1e6, path.display());
        }
        let mut source = ModelLogits::with_cache(&model, cache)?;
        let bar = progress::bar("perplexity", plan.sequences().len());
        let report = evaluate(&plan, &mut source, base, writer.as_mut(), &mut |p| {
            bar.set_position(p.done as u64);
            bar.set_message(format!("{:.4}", p.ppl));
        })?;
        bar.finish_and_clear();
        if let Some(writer) = writer {
            writer.finish()?;
        }
        let noise = match plan.sequences().first() {
            Some(sequence) => model.cache_noise(cache, &sequence.tokens)?,
            None => Vec::new(),
        };
        match self.json {
            true => print_json(&report_json(&report, &noise)),
            false => to_stdout(|out| print_report(out, &report, &noise)),
        }
    }

    fn plan_of_text(&self, text: &str, tokenizer: &Tokenizer, ctx: usize) -> CliResult<EvalPlan> {
        Ok(EvalPlan::from_text(tokenizer, text, ctx, self.chunks)?)
    }

    /// Says if the tokens of the logits file are not those of the text given beside it.
    fn compare_with_text(&self, plan: &EvalPlan, text: &str, tokenizer: &Tokenizer, path: &Path) {
        let of_text = self.plan_of_text(text, tokenizer, plan.ctx());
        let same = of_text.is_ok_and(|t| {
            let pairs = t.sequences().iter().zip(plan.sequences());
            t.sequences().len() >= plan.sequences().len() && pairs.into_iter().all(|(a, b)| a.tokens == b.tokens)
        });
        if !same {
            eprintln!("note: the tokens of {} are evaluated; they are not those of the text", path.display());
        }
    }
}

/// Mean and largest over the layers: of logits, of outputs.
fn over_layers(noise: &[CacheNoise]) -> [(f64, f64); 2] {
    let of = |value: fn(&CacheNoise) -> f64| {
        let values = noise.iter().map(value);
        (values.clone().sum::<f64>() / noise.len().max(1) as f64, values.fold(0.0, f64::max))
    };
    [of(|n| n.logits), of(|n| n.output)]
}

fn report_json(r: &EvalReport, noise: &[CacheNoise]) -> Value {
    let mut out = json!({
        "ctx": r.ctx, "chunks": r.chunks, "tokens_scored": r.tokens_scored, "ppl": r.ppl, "ppl_stderr": r.ppl_stderr,
        "cache_bytes_per_token": r.cache_bytes_per_token,
    });
    if !noise.is_empty() {
        let [logits, output] = over_layers(noise);
        out["cache_noise"] = json!({
            "logits": {"mean": logits.0, "max": logits.1}, "output": {"mean": output.0, "max": output.1},
        });
    }
    if let Some(b) = &r.base {
        out["base_ppl"] = json!(b.base_ppl);
        out["kl"] = json!({
            "mean": b.kl.mean, "mean_stderr": b.kl.mean_stderr, "median": b.kl.median, "p90": b.kl.p90, "p99": b.kl.p99,
            "p99_9": b.kl.p99_9, "max": b.kl.max,
        });
        out["same_top1"] = json!(b.same_top1);
        out["same_top1_stderr"] = json!(b.same_top1_stderr);
        out["delta_p"] = json!({"mean": b.delta_p_mean, "rms": b.delta_p_rms});
    }
    out
}

fn print_report(out: &mut dyn Write, r: &EvalReport, noise: &[CacheNoise]) -> std::io::Result<()> {
    writeln!(out, "perplexity {:.4} ± {:.4}", r.ppl, r.ppl_stderr)?;
    let chunks = if r.chunks == 1 { "chunk" } else { "chunks" };
    writeln!(out, "{} tokens scored, {} {chunks} of {}", r.tokens_scored, r.chunks, r.ctx)?;
    if !noise.is_empty() {
        let [logits, output] = over_layers(noise);
        let share = |(mean, max): (f64, f64)| format!("{mean:.2e} (worst layer {max:.2e})");
        writeln!(out, "noise of the cache: logits {} of their variance", share(logits))?;
        writeln!(out, "                    outputs {} of their power", share(output))?;
    }
    let Some(b) = &r.base else { return Ok(()) };
    writeln!(out, "base perplexity {:.4}, ratio {:.6}", b.base_ppl, r.ppl / b.base_ppl)?;
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row("mean", format!("{:.6} ± {:.6}", b.kl.mean, b.kl.mean_stderr)),
        row("median", format!("{:.6}", b.kl.median)),
        row("90 %", format!("{:.6}", b.kl.p90)),
        row("99 %", format!("{:.6}", b.kl.p99)),
        row("99.9 %", format!("{:.6}", b.kl.p99_9)),
        row("max", format!("{:.6}", b.kl.max)),
    ];
    write!(out, "{}", table::render(&["divergence", "nats"], &rows))?;
    writeln!(out, "same top token {:.3} ± {:.3} %", 100.0 * b.same_top1, 100.0 * b.same_top1_stderr)?;
    writeln!(out, "change of p(next) {:+.4} % mean, {:.4} % RMS", 100.0 * b.delta_p_mean, 100.0 * b.delta_p_rms)
}
