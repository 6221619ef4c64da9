//! Generation: sampling, stop strings, streaming.
//!
//! ```no_run
//! use quant_runtime::generate::{GenerateOptions, Generator};
//! use quant_runtime::{Checkpoint, Model, Tokenizer};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> quant_runtime::Result<()> {
//! let checkpoint = Checkpoint::open("model.gguf")?;
//! let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
//! let model = Model::load(&checkpoint, &quant_runtime::Device::Cpu)?;
//! let prompt = tokenizer.encode("Once upon a time", true, false)?;
//! let mut generator = Generator::new(&model, &tokenizer, GenerateOptions::default())?;
//! let result = generator.generate(&prompt, |text| {
//!     print!("{text}");
//!     ControlFlow::Continue(())
//! })?;
//! println!("\n{} tokens, {:?}", result.generated_tokens, result.finish_reason);
//! # Ok(())
//! # }
//! ```

mod language_model;
mod rng;
mod sampler;
mod stop;

pub use language_model::LanguageModel;
pub use rng::SplitMix64;
pub use sampler::{Sampler, SamplingOptions};
pub use stop::{Passed, StopStrings};

use crate::tokenizer::TokenStream;
use crate::{CacheChoice, Error, Model, Result, Tokenizer};
use std::ops::ControlFlow;
use std::time::Instant;

/// Tokens of a prompt that go through the model at once: enough to be fast, and few enough to be interrupted.
const PROMPT_BATCH: usize = 512;

/// What to generate, and how long.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// At most so many tokens.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// The text ends before any of these.
    pub stop: Vec<String>,
    /// Tokens of prompt and answer together; `None`: what the model was made for.
    pub context: Option<usize>,
    /// What keys and values are stored as.
    pub cache: CacheChoice,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 128,
            sampling: SamplingOptions::default(),
            stop: Vec::new(),
            context: None,
            cache: CacheChoice::F32,
        }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its text.
    EndOfGeneration,
    /// A stop string came.
    Stop,
    /// `max_tokens` were made.
    MaxTokens,
    /// The context has no room for another token.
    ContextFull,
    /// The caller said so.
    Cancelled,
}

impl FinishReason {
    /// A word for it, in figures: `end`, `stop`, `max_tokens`, `context_full`, `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfGeneration => "end",
            Self::Stop => "stop",
            Self::MaxTokens => "max_tokens",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A generated text and how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The text, without special tokens and without a stop string.
    pub text: String,
    /// Its tokens. The token that ended the generation is not among them; those of a stop string are.
    pub ids: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were in the cache already.
    pub cached_tokens: usize,
    /// `ids.len()`.
    pub generated_tokens: usize,
    /// Tokens of the prompt that went through the model, per second; 0 if it took no time.
    pub prompt_tokens_per_second: f64,
    /// Tokens that went through the model one by one, per second; 0 if there were none.
    pub tokens_per_second: f64,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Generates texts with one model. Keeps the keys and values of the last text: a prompt that begins like it starts where it differs.
#[derive(Debug)]
pub struct Generator<'m, M: LanguageModel = Model> {
    model: &'m M,
    tokenizer: &'m Tokenizer,
    options: GenerateOptions,
    sampler: Sampler,
    context: usize,
    cache: M::Cache,
    /// The tokens in the cache.
    cached: Vec<u32>,
}

impl<'m, M: LanguageModel> Generator<'m, M> {
    /// # Errors
    /// [`Error::Usage`]: an option is out of range, or the context longer than the model's; a cache that the model cannot have.
    pub fn new(model: &'m M, tokenizer: &'m Tokenizer, options: GenerateOptions) -> Result<Self> {
        let sampler = Sampler::new(options.sampling.clone())?;
        let made_for = model.max_context();
        let context = options.context.unwrap_or(made_for);
        if context == 0 || context > made_for {
            return Err(Error::Usage(format!("a context of {context} tokens: the model was made for 1 to {made_for}")));
        }
        let cache = model.new_cache(options.cache)?;
        Ok(Self { model, tokenizer, options, sampler, context, cache, cached: Vec::new() })
    }

    /// The options.
    pub fn options(&self) -> &GenerateOptions {
        &self.options
    }

    /// Tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Generates after `prompt`. `on_text` gets the text as it comes, whole characters, and can end it.
    ///
    /// # Errors
    /// [`Error::Usage`]: an empty prompt, or one that fills the context; an id outside the vocabulary; whatever the model says.
    pub fn generate(&mut self, prompt: &[u32], mut on_text: impl FnMut(&str) -> ControlFlow<()>) -> Result<Generation> {
        if prompt.is_empty() {
            return Err(Error::Usage("the prompt is empty, and the model has no token to begin with".to_owned()));
        }
        if prompt.len() > self.context {
            let (n, context) = (prompt.len(), self.context);
            return Err(Error::Usage(format!("the prompt has {n} tokens; the context holds {context}")));
        }
        let started = Instant::now();
        let cached_tokens = self.keep_common_prefix(prompt);
        let mut logits = Vec::new();
        let mut done = cached_tokens;
        while done < prompt.len() {
            let end = prompt.len().min(done + PROMPT_BATCH);
            logits = self.forward(&prompt[done..end], end == prompt.len())?;
            done = end;
        }
        let prompt_seconds = started.elapsed().as_secs_f64();

        let decoding = Instant::now();
        let mut out = Out {
            stream: self.tokenizer.stream(false),
            stops: StopStrings::new(self.options.stop.clone()),
            text: String::new(),
        };
        let mut ids = Vec::new();
        let mut steps = 0;
        let finish_reason = loop {
            if ids.len() >= self.options.max_tokens {
                break FinishReason::MaxTokens;
            }
            if self.cached.len() >= self.context {
                break FinishReason::ContextFull;
            }
            let id = self.sampler.sample(&logits, &self.cached)?;
            if self.tokenizer.end_of_generation().contains(&id) {
                break FinishReason::EndOfGeneration;
            }
            ids.push(id);
            if let ControlFlow::Break(reason) = out.push(id, &mut on_text)? {
                break reason;
            }
            if ids.len() < self.options.max_tokens {
                logits = self.forward(&[id], true)?;
                steps += 1;
            }
        };
        if !matches!(finish_reason, FinishReason::Stop | FinishReason::Cancelled) {
            out.finish(&mut on_text);
        }
        let speed = |n: usize, seconds: f64| if n > 0 && seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        Ok(Generation {
            text: out.text,
            prompt_tokens: prompt.len(),
            cached_tokens,
            generated_tokens: ids.len(),
            ids,
            prompt_tokens_per_second: speed(prompt.len() - cached_tokens, prompt_seconds),
            tokens_per_second: speed(steps, decoding.elapsed().as_secs_f64()),
            finish_reason,
        })
    }

    /// Cuts the cache to what it has in common with the prompt, without its last token: that one gives the first logits.
    fn keep_common_prefix(&mut self, prompt: &[u32]) -> usize {
        let common = self.cached.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1);
        let kept = M::truncate(&mut self.cache, common);
        self.cached.truncate(kept);
        kept
    }

    /// Logits after the last of `tokens`, or nothing where nobody asks.
    fn forward(&mut self, tokens: &[u32], wanted: bool) -> Result<Vec<f32>> {
        match self.model.next_logits(tokens, &mut self.cache, wanted) {
            Ok(logits) => {
                self.cached.extend_from_slice(tokens);
                Ok(logits)
            }
            Err(e) => {
                // What the cache holds after a failure is not known.
                M::truncate(&mut self.cache, 0);
                self.cached.clear();
                Err(e)
            }
        }
    }
}

/// Tokens on their way to the caller.
struct Out<'t> {
    stream: TokenStream<'t>,
    stops: StopStrings,
    text: String,
}

impl Out<'_> {
    fn push(
        &mut self,
        id: u32,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<ControlFlow<FinishReason>> {
        let passed = self.stops.push(&self.stream.push(id)?);
        self.text.push_str(&passed.text);
        if !passed.text.is_empty() && on_text(&passed.text).is_break() {
            return Ok(ControlFlow::Break(FinishReason::Cancelled));
        }
        Ok(if passed.stopped { ControlFlow::Break(FinishReason::Stop) } else { ControlFlow::Continue(()) })
    }

    /// What was held back.
    fn finish(&mut self, on_text: &mut impl FnMut(&str) -> ControlFlow<()>) {
        let unfinished = self.stream.finish();
        let passed = self.stops.push(&unfinished);
        let held = if passed.stopped { String::new() } else { self.stops.finish() };
        let rest = passed.text + &held;
        self.text.push_str(&rest);
        if !rest.is_empty() {
            // Nothing follows that could be cancelled.
            let _ = on_text(&rest);
        }
    }
}

#[cfg(test)]
mod tests;
