//! `quant run`: generate text, once or in a conversation.

use crate::error::{CliError, CliResult};
use crate::output;
use quant_runtime::chat_template::{ChatTemplate, Message};
use quant_runtime::generate::{FinishReason, GenerateOptions, Generation, Generator, SamplingOptions};
use quant_runtime::{Checkpoint, Device, Model, Tokenizer};
use serde_json::json;
use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Generate text.
///
/// With -p once, without it a conversation: one line of standard input is one turn; `/exit` or the end of input ends it. The model's chat
/// template is applied where it has one. The text goes to standard output as it comes, figures to standard error.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// GGUF file, or directory with safetensors.
    model: PathBuf,
    /// What to answer, or with --raw to continue.
    #[arg(short, long, value_name = "PROMPT")]
    prompt: Option<String>,
    /// Tokens to generate at the most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// Plain continuation: no chat template.
    #[arg(long, requires = "prompt")]
    raw: bool,
    /// System message of the conversation.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// 0: always the most likely token.
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f32,
    /// The fewest most likely tokens with this probability together stay; 1: all.
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    top_p: f32,
    /// The most likely tokens that stay; 0: all.
    #[arg(long, value_name = "K", default_value_t = 40)]
    top_k: usize,
    /// Tokens at least this likely relative to the likeliest stay; 0: all.
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    min_p: f32,
    /// Above 1: tokens seen lately become less likely.
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repeat_penalty: f32,
    /// Equal seeds give equal texts.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// The text ends before this; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Tokens of prompt and answer together [default: what the model was made for].
    #[arg(long, value_name = "N")]
    ctx: Option<usize>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    device: DeviceName,
    /// Print one JSON object at the end, and no text before.
    #[arg(long, requires = "prompt")]
    json: bool,
}

/// A kind of device.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DeviceName {
    Cpu,
    Cuda,
    Metal,
}

impl DeviceName {
    fn open(self) -> CliResult<Device> {
        let without = |feature: &str| {
            CliError::Usage(format!("this program was built without {feature}: build it with `--features {feature}`"))
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda if !cfg!(feature = "cuda") => Err(without("cuda")),
            Self::Metal if !cfg!(feature = "metal") => Err(without("metal")),
            Self::Cuda => Device::new_cuda(0).map_err(|e| CliError::Failed(format!("cuda: {e}"))),
            Self::Metal => Device::new_metal(0).map_err(|e| CliError::Failed(format!("metal: {e}"))),
        }
    }
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let device = self.device.open()?;
        let options = self.options();
        options.sampling.validate()?;
        let checkpoint = Checkpoint::open(&self.model)?;
        let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
        let template = if self.raw { None } else { ChatTemplate::from_tokenizer(&tokenizer)? };
        let model = Model::load(&checkpoint, &device)?;
        let mut generator = Generator::new(&model, &tokenizer, options)?;
        let mut messages: Vec<Message> = self.system.iter().map(|s| Message::new("system", s)).collect();
        if self.system.is_some() && template.is_none() {
            return Err(CliError::Usage("--system: this model has no chat template".to_owned()));
        }
        match &self.prompt {
            Some(prompt) => {
                let ids = match &template {
                    Some(template) => {
                        messages.push(Message::new("user", prompt));
                        // The template writes BOS itself where the model wants it.
                        tokenizer.encode(&template.render(&messages, true)?, false, true)?
                    }
                    None => tokenizer.encode(prompt, true, true)?,
                };
                self.once(&mut generator, &ids)
            }
            None => {
                let template = template.ok_or_else(|| {
                    CliError::Usage("this model has no chat template: give a text to continue with -p".to_owned())
                })?;
                self.converse(&mut generator, &tokenizer, &template, messages)
            }
        }
    }

    fn options(&self) -> GenerateOptions {
        GenerateOptions {
            max_tokens: self.max_tokens,
            sampling: SamplingOptions {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repeat_penalty: self.repeat_penalty,
                seed: self.seed,
                ..SamplingOptions::default()
            },
            stop: self.stop.clone(),
            context: self.ctx,
        }
    }

    fn once(&self, generator: &mut Generator<'_>, ids: &[u32]) -> CliResult {
        if self.json {
            let g = generator.generate(ids, |_| ControlFlow::Continue(()))?;
            return output::print_json(&json!({
                "text": g.text, "ids": g.ids, "prompt_tokens": g.prompt_tokens, "generated_tokens": g.generated_tokens,
                "prompt_tokens_per_second": g.prompt_tokens_per_second, "tokens_per_second": g.tokens_per_second,
                "finish_reason": g.finish_reason.name(),
            }));
        }
        let g = generator.generate(ids, stream)?;
        let _ = stream("\n"); // nothing follows that could be cancelled
        report(&g);
        Ok(())
    }

    fn converse(
        &self,
        generator: &mut Generator<'_>,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        mut messages: Vec<Message>,
    ) -> CliResult {
        let stdin = std::io::stdin();
        let at_terminal = stdin.is_terminal();
        let mut line = String::new();
        loop {
            if at_terminal {
                eprint!("> ");
            }
            line.clear();
            let read = stdin.lock().read_line(&mut line);
            let read = read.map_err(|e| CliError::Failed(format!("standard input: {e}")))?;
            let turn = line.trim();
            if read == 0 || turn == "/exit" {
                return Ok(());
            }
            if turn.is_empty() {
                continue;
            }
            messages.push(Message::new("user", turn));
            let ids = tokenizer.encode(&template.render(&messages, true)?, false, true)?;
            let g = generator.generate(&ids, stream)?;
            if g.finish_reason == FinishReason::Cancelled || stream("\n").is_break() {
                return Ok(());
            }
            if at_terminal {
                report(&g);
            }
            messages.push(Message::new("assistant", g.text));
        }
    }
}

/// Shows text at once; a closed standard output ends the generation.
fn stream(text: &str) -> ControlFlow<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

fn report(g: &Generation) {
    eprintln!(
        "[{} prompt tokens, {:.1} t/s; {} generated, {:.1} t/s; {}]",
        g.prompt_tokens,
        g.prompt_tokens_per_second,
        g.generated_tokens,
        g.tokens_per_second,
        g.finish_reason.name()
    );
}
