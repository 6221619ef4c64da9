//! `quant run`: an answer, a continuation, or a chat.

mod chat;
mod device;

use crate::cache_args::CacheArgs;
use crate::error::{CliError, CliResult};
use crate::output::{self, Stream};
use crate::products_arg::ProductArgs;
use device::DeviceKind;
use quant_runtime::chat_template::{ChatTemplate, Message};
use quant_runtime::generate::{FinishReason, GenerateOptions, Generation, Generator, SamplingOptions};
use quant_runtime::{Checkpoint, Tokenizer};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Run a model: answer a prompt, or chat.
///
/// The text goes to standard output as it comes, the figures to standard error. Without -p a chat begins: a line is a message; /clear forgets
/// the conversation, /exit or the end of the input ends it.
///
/// A model's chat template is applied where it has one. Tokens are chosen in this order: repetition penalty, top-k, top-p, min-p, temperature.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// GGUF file, or directory with safetensors.
    model: PathBuf,
    /// The prompt.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// At most so many tokens [default: 128; in a chat what the context holds].
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Continue the prompt as it is, without a chat template.
    #[arg(long)]
    raw: bool,
    /// What the model is told before the conversation.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// 0: always the most likely token; above: more varied.
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f32,
    /// Choose among the K most likely tokens; 0: among all.
    #[arg(long, value_name = "K", default_value_t = 40)]
    top_k: usize,
    /// Choose among the most likely tokens that have together probability P; 1: among all.
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    top_p: f32,
    /// Choose among tokens at least P times as likely as the likeliest; 0: among all.
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    min_p: f32,
    /// Make tokens that came before less likely; 1: not.
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repeat_penalty: f32,
    /// How many tokens back --repeat-penalty looks.
    #[arg(long, value_name = "N", default_value_t = 64)]
    repeat_last_n: usize,
    /// Equal seeds give equal texts [default: another each time; it is shown].
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// End the text before this string; may be given again.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Tokens of prompt and answer together [default: what the model was made for].
    #[arg(long, value_name = "N")]
    ctx: Option<usize>,
    #[command(flatten)]
    products: ProductArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    device: DeviceKind,
    /// Print one JSON object instead of the text.
    #[arg(long, requires = "prompt")]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let seed = self.seed.unwrap_or_else(random_seed);
        let options = GenerateOptions {
            max_tokens: self.max_tokens.unwrap_or(if self.prompt.is_some() { 128 } else { usize::MAX }),
            sampling: SamplingOptions {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repeat_penalty: self.repeat_penalty,
                repeat_last_n: self.repeat_last_n,
                seed,
            },
            stop: self.stop.clone(),
            context: self.ctx,
            cache: self.cache.choice()?,
        };
        // Before gigabytes are read.
        options.sampling.validate()?;
        let device = self.device.open()?;
        let checkpoint = Checkpoint::open(&self.model)?;
        let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
        let template = if self.raw { None } else { ChatTemplate::from_tokenizer(&tokenizer)? };
        if template.is_none() && self.system.is_some() {
            let model = self.model.display();
            return Err(CliError::Usage(format!("{model} has no chat template, and so no place for --system")));
        }
        let model = self.products.load(&checkpoint, &device)?;
        let generator = Generator::new(&model, &tokenizer, options)?;
        let prompts = Prompts { tokenizer: &tokenizer, template };
        match &self.prompt {
            Some(prompt) => self.answer(generator, &prompts, prompt, seed),
            None => chat::run(generator, &prompts, self.system.as_deref(), seed),
        }
    }

    fn answer(&self, mut generator: Generator<'_>, prompts: &Prompts<'_>, prompt: &str, seed: u64) -> CliResult {
        let system = self.system.iter().map(|text| Message::new("system", text));
        let messages: Vec<Message> = system.chain([Message::new("user", prompt)]).collect();
        let ids = prompts.ids(&messages, prompt)?;
        if self.json {
            let result = generator.generate(&ids, |_| ControlFlow::Continue(()))?;
            let mut object = json!({
                "text": result.text, "ids": result.ids, "prompt_tokens": result.prompt_tokens,
                "generated_tokens": result.generated_tokens,
                "prompt_tokens_per_second": result.prompt_tokens_per_second,
                "tokens_per_second": result.tokens_per_second,
                "finish_reason": result.finish_reason.name(), "seed": seed,
            });
            if self.temperature == 0.0 {
                // Nothing was drawn.
                object["seed"] = serde_json::Value::Null;
            }
            return output::print_json(&object);
        }
        let mut stream = Stream::stdout();
        let result = generator.generate(&ids, |text| stream.write(text))?;
        let _ = stream.write("\n");
        stream.finish()?;
        report(&result, (self.temperature > 0.0).then_some(seed));
        Ok(())
    }
}

/// How texts become prompts.
struct Prompts<'t> {
    tokenizer: &'t Tokenizer,
    template: Option<ChatTemplate>,
}

impl Prompts<'_> {
    /// The tokens of a conversation by the template; of the plain text where there is none.
    fn ids(&self, messages: &[Message], plain: &str) -> CliResult<Vec<u32>> {
        let Some(template) = &self.template else { return Ok(self.tokenizer.encode(plain, true, true)?) };
        let text = template.render(messages, true)?;
        let mut ids = self.tokenizer.encode(&text, false, true)?;
        // Some templates begin with BOS, some leave it to the tokenizer.
        if let Some(bos) = self.tokenizer.added_bos().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}

/// Figures, on standard error.
fn report(result: &Generation, seed: Option<u64>) {
    let cached = if result.cached_tokens > 0 { format!(" ({} kept)", result.cached_tokens) } else { String::new() };
    let end = match result.finish_reason {
        FinishReason::ContextFull => "; the context is full",
        FinishReason::MaxTokens => "; ended by -n",
        FinishReason::Stop => "; stop string",
        FinishReason::EndOfGeneration | FinishReason::Cancelled => "",
    };
    let seed = seed.map_or(String::new(), |seed| format!("; seed {seed}"));
    eprintln!(
        "[prompt {} tokens{cached}, {:.1} t/s; generated {} tokens, {:.1} t/s{end}{seed}]",
        result.prompt_tokens, result.prompt_tokens_per_second, result.generated_tokens, result.tokens_per_second,
    );
}

/// A seed from the clock and the process, small enough to type again.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) >> 32
}
