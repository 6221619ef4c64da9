//! Generation with a model that says a fixed text.

use super::*;
use gguf_format::Metadata;

/// Says `script`, a token at a time, whatever came before; counts the tokens it was given.
struct Parrot {
    prompt: usize,
    script: Vec<u32>,
    context: usize,
    seen: std::cell::Cell<usize>,
}

impl LanguageModel for Parrot {
    type Cache = Vec<u32>;

    fn new_cache(&self, choice: CacheChoice) -> Result<Vec<u32>> {
        assert_eq!(choice, CacheChoice::F32);
        Ok(Vec::new())
    }

    fn truncate(cache: &mut Vec<u32>, len: usize) -> usize {
        cache.truncate(len);
        cache.len()
    }

    fn max_context(&self) -> usize {
        self.context
    }

    fn next_logits(&self, tokens: &[u32], cache: &mut Vec<u32>, wanted: bool) -> Result<Vec<f32>> {
        cache.extend(tokens);
        self.seen.set(self.seen.get() + tokens.len());
        assert!(cache.len() <= self.context, "never beyond the context");
        let mut logits = vec![0.0; if wanted { 257 } else { 0 }];
        if wanted {
            let next = self.script.get(cache.len() - self.prompt).copied().unwrap_or(256);
            logits[next as usize] = 10.0;
        }
        Ok(logits)
    }
}

/// A byte-level tokenizer without merges: the ids of printable ASCII are its bytes in GPT-2's order, 256 ends.
fn tokenizer() -> Tokenizer {
    let mut tokens: Vec<String> = (0..=255u8).map(|b| crate::tokenizer::byte_character(b).to_string()).collect();
    tokens.push("<|endoftext|>".to_owned());
    let mut kinds = vec![1i32; 256];
    kinds.push(3);
    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", "gpt-2");
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set("tokenizer.ggml.token_type", kinds);
    metadata.set("tokenizer.ggml.merges", Vec::<String>::new());
    metadata.set("tokenizer.ggml.eos_token_id", 256u32);
    Tokenizer::from_gguf_metadata(&metadata, "test").expect("loads")
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn parrot(script: &str, prompt: usize, context: usize) -> Parrot {
    Parrot { prompt, script: bytes(script), context, seen: std::cell::Cell::new(0) }
}

fn greedy() -> GenerateOptions {
    GenerateOptions { sampling: SamplingOptions::greedy(), ..GenerateOptions::default() }
}

#[test]
fn reasons_to_end() {
    let tokenizer = tokenizer();
    // Script, options, text, tokens, reason.
    let stop = |s: &str| GenerateOptions { stop: vec![s.to_owned()], ..greedy() };
    let cases: &[(&str, GenerateOptions, &str, usize, FinishReason)] = &[
        ("Hello", greedy(), "Hello", 5, FinishReason::EndOfGeneration),
        ("", greedy(), "", 0, FinishReason::EndOfGeneration),
        ("Hello", GenerateOptions { max_tokens: 3, ..greedy() }, "Hel", 3, FinishReason::MaxTokens),
        ("Hello", GenerateOptions { max_tokens: 0, ..greedy() }, "", 0, FinishReason::MaxTokens),
        ("Hello", GenerateOptions { context: Some(4), ..greedy() }, "He", 2, FinishReason::ContextFull),
        ("one END two", stop("END"), "one ", 7, FinishReason::Stop),
        ("one EN", stop("END"), "one EN", 6, FinishReason::EndOfGeneration),
        ("🦀 ok", greedy(), "🦀 ok", 7, FinishReason::EndOfGeneration),
        ("🦀 ok", GenerateOptions { max_tokens: 2, ..greedy() }, "\u{fffd}", 2, FinishReason::MaxTokens),
    ];
    for (script, options, text, tokens, reason) in cases {
        let model = parrot(script, 2, 100);
        let mut generator = Generator::new(&model, &tokenizer, options.clone()).expect("good options");
        let mut streamed = String::new();
        let result = generator
            .generate(&bytes("ab"), |piece| {
                assert!(!piece.is_empty());
                streamed.push_str(piece);
                ControlFlow::Continue(())
            })
            .expect("generates");
        assert_eq!(
            (result.text.as_str(), result.generated_tokens, result.finish_reason),
            (*text, *tokens, *reason),
            "{script}"
        );
        assert_eq!(streamed, *text, "{script}");
        assert_eq!(result.ids.len(), *tokens);
        assert_eq!(result.prompt_tokens, 2);
    }
}

#[test]
fn the_caller_can_end_it() {
    let (tokenizer, model) = (tokenizer(), parrot("Hello", 1, 100));
    let mut generator = Generator::new(&model, &tokenizer, greedy()).expect("good options");
    let end_at_l = |text: &str| if text == "l" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let result = generator.generate(&bytes("a"), end_at_l).expect("generates");
    assert_eq!((result.text.as_str(), result.finish_reason), ("Hel", FinishReason::Cancelled));
}

#[test]
fn a_common_beginning_is_not_computed_again() {
    let (tokenizer, model) = (tokenizer(), parrot("xyz", 3, 2000));
    let mut generator = Generator::new(&model, &tokenizer, greedy()).expect("good options");
    let go = |generator: &mut Generator<'_, Parrot>, prompt: &str| {
        let before = model.seen.get();
        let result = generator.generate(&bytes(prompt), |_| ControlFlow::Continue(())).expect("generates");
        (result.cached_tokens, model.seen.get() - before, result.text)
    };
    assert_eq!(go(&mut generator, "abc"), (0, 6, "xyz".to_owned()));
    // Six tokens are cached: abcxyz. The text goes on, then differs, then is the same.
    assert_eq!(go(&mut generator, "abcxyzq"), (6, 1, String::new()));
    assert_eq!(go(&mut generator, "abQ").0, 2);
    assert_eq!(go(&mut generator, "abQ").0, 2);
    let long = "m".repeat(1300);
    assert_eq!(go(&mut generator, &long), (0, 1300, String::new()));
}

#[test]
fn impossible_prompts() {
    let (tokenizer, model) = (tokenizer(), parrot("x", 1, 4));
    let mut generator = Generator::new(&model, &tokenizer, greedy()).expect("good options");
    let error = |generator: &mut Generator<'_, Parrot>, prompt: &[u32]| {
        generator.generate(prompt, |_| ControlFlow::Continue(())).expect_err("refused").to_string()
    };
    assert_eq!(error(&mut generator, &[]), "the prompt is empty, and the model has no token to begin with");
    assert_eq!(error(&mut generator, &[1; 5]), "the prompt has 5 tokens; the context holds 4");
    for context in [0, 5] {
        let options = GenerateOptions { context: Some(context), ..greedy() };
        assert!(matches!(Generator::new(&model, &tokenizer, options), Err(Error::Usage(_))));
    }
}
