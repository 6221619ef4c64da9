//! A tokenizer from the metadata of a GGUF file (keys: ggml `docs/gguf.md`; defaults: llama.cpp `src/llama-vocab.cpp`, 0c1e57098).

use super::bpe::{self, Bpe};
use super::end_of_generation::{NamedIds, end_of_generation};
use super::pre_tokenizer::{PreTokenizer, known_pre_tokenizers};
use super::special::{Fragment, SpecialTokens};
use super::spm::{self, Spm};
use super::vocab::{TokenKind, Vocab};
use super::{Settings, TokenizerError};
use gguf_format::{Array, Metadata};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// The tokenizer of a GGUF file.
#[derive(Clone, Debug)]
pub(crate) struct GgufTokenizer {
    vocab: Vocab,
    specials: SpecialTokens,
    algorithm: Algorithm,
}

#[derive(Clone, Debug)]
enum Algorithm {
    Bpe(Box<Bpe>),
    Spm { spm: Box<Spm>, space_prefix: bool },
}

impl GgufTokenizer {
    pub(crate) fn load(metadata: &Metadata) -> Result<(Self, Settings), TokenizerError> {
        let model = metadata.need_str(MODEL)?;
        if !matches!(model, "gpt2" | "llama") {
            return Err(TokenizerError::Unknown {
                key: MODEL.to_owned(),
                found: model.to_owned(),
                known: "gpt2, llama".to_owned(),
            });
        }
        let is_spm = model == "llama";
        let mut vocab = read_vocab(metadata)?;
        let id = |key: &str, default: Option<u32>| special_id(metadata, key, default, vocab.len());
        // Llama's own ids are the default of `llama`. llama.cpp's default of `gpt2` is 11, which is right for Falcon alone: none here.
        let default = |id: u32| is_spm.then_some(id);
        let bos = id("bos", default(1))?;
        let unknown = id("unknown", default(0))?;
        let named = NamedIds {
            eos: id("eos", default(2))?,
            eot: id("eot", None)?,
            eom: id("eom", None)?,
            fim_pad: id("fim_pad", None)?,
            fim_repo: id("fim_rep", None)?,
            fim_separator: id("fim_sep", None)?,
        };
        let (algorithm, adds_bos) = if is_spm {
            let scores = read_scores(metadata, vocab.len())?;
            let space_prefix = metadata.get_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
            (Algorithm::Spm { spm: Box::new(Spm::new(&vocab, scores, unknown)), space_prefix }, true)
        } else {
            let pre = read_pre(metadata)?;
            let adds_bos = pre.adds_bos;
            let merges = metadata.need_array(MERGES)?;
            let merges = Counted { left: merges.len(), items: merges.strs()? };
            (Algorithm::Bpe(Box::new(Bpe::new(&vocab, MERGES, merges, pre)?)), adds_bos)
        };
        let adds_bos = metadata.get_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos);
        let adds_eos = metadata.get_bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        for (adds, id, key) in [(adds_bos, bos, "bos"), (adds_eos, named.eos, "eos")] {
            if adds && id.is_none() {
                let key = format!("tokenizer.ggml.{key}_token_id");
                return Err(TokenizerError::missing(&key, "the model puts this token around its texts"));
            }
        }
        let end_of_generation = end_of_generation(&mut vocab, named);
        // Phi-3's special tokens take the white space after them along; no key of the file says so.
        let name = metadata.get_str("general.name")?.unwrap_or_default().to_lowercase();
        let is_phi3 = name.contains("phi-3") || name.contains("phi3");
        let specials = SpecialTokens::new(&vocab, |text| is_phi3 && !matches!(text, "<unk>" | "<s>" | "<|endoftext|>"));
        let settings = Settings {
            bos,
            eos: named.eos,
            adds_bos,
            adds_eos,
            end_of_generation,
            chat_template: metadata.get_str("tokenizer.chat_template")?.map(str::to_owned),
            strips_first_space: matches!(algorithm, Algorithm::Spm { space_prefix: true, .. }),
        };
        Ok((Self { vocab, specials, algorithm }, settings))
    }

    pub(crate) fn encode(
        &self,
        text: &str,
        settings: &Settings,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        ids.extend(settings.bos.filter(|_| add_special && settings.adds_bos));
        let mut after_special = true;
        for fragment in self.specials.partition(text, parse_special) {
            match (fragment, &self.algorithm) {
                (Fragment::Token(id), _) => ids.push(id),
                (Fragment::Text(text), Algorithm::Bpe(bpe)) => bpe.encode(&self.vocab, text, &mut ids),
                (Fragment::Text(text), Algorithm::Spm { spm, space_prefix }) => {
                    spm.encode(&self.vocab, text, *space_prefix && after_special, &mut ids)?;
                }
            }
            after_special = matches!(fragment, Fragment::Token(_));
        }
        ids.extend(settings.eos.filter(|_| add_special && settings.adds_eos));
        Ok(ids)
    }

    pub(crate) fn piece(&self, id: u32) -> Result<Vec<u8>, TokenizerError> {
        self.vocab.check_id(id)?;
        Ok(match self.algorithm {
            Algorithm::Bpe(_) => bpe::piece(&self.vocab, id),
            Algorithm::Spm { .. } => spm::piece(&self.vocab, id),
        })
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.vocab
    }
}

/// An iterator whose length is known from elsewhere.
struct Counted<I> {
    left: usize,
    items: I,
}

impl<I: Iterator> Iterator for Counted<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let item = self.items.next();
        self.left = self.left.saturating_sub(usize::from(item.is_some()));
        item
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Iterator> ExactSizeIterator for Counted<I> {}

fn check_count(array: &Array<'_>, key: &str, tokens: usize) -> Result<(), TokenizerError> {
    if array.len() == tokens {
        return Ok(());
    }
    Err(TokenizerError::malformed(
        key,
        format!("{tokens} elements, one for each token"),
        format!("{} elements", array.len()),
    ))
}

fn read_vocab(metadata: &Metadata) -> Result<Vocab, TokenizerError> {
    let tokens = metadata.need_array(TOKENS)?;
    let texts = Counted { left: tokens.len(), items: tokens.strs()? };
    let kinds = match metadata.get_array(KINDS)? {
        Some(kinds) => {
            check_count(&kinds, KINDS, tokens.len())?;
            let kind = |(i, n): (usize, i64)| {
                TokenKind::from_number(n)
                    .ok_or_else(|| TokenizerError::malformed(KINDS, "1 to 6", format!("{n} for token {i}")))
            };
            kinds.ints()?.enumerate().map(kind).collect::<Result<_, _>>()?
        }
        None => vec![TokenKind::Normal; tokens.len()],
    };
    Vocab::new(TOKENS, texts, kinds)
}

/// One score for each token, f32 or an integer.
fn read_scores(metadata: &Metadata, tokens: usize) -> Result<Vec<f32>, TokenizerError> {
    let Some(array) = metadata.get_array(SCORES)? else {
        return Err(TokenizerError::missing(SCORES, "the scores say which pairs are joined first"));
    };
    check_count(&array, SCORES, tokens)?;
    let scores: Vec<f32> = match array.floats() {
        Ok(scores) => scores.collect(),
        Err(_) => array.ints()?.map(|score| score as f32).collect(),
    };
    match scores.iter().position(|score| score.is_nan()) {
        Some(i) => Err(TokenizerError::malformed(SCORES, "numbers", format!("NaN for token {i}"))),
        // Adding zero makes -0 equal to 0.
        None => Ok(scores.into_iter().map(|score| score + 0.0).collect()),
    }
}

fn read_pre(metadata: &Metadata) -> Result<PreTokenizer, TokenizerError> {
    let Some(name) = metadata.get_str(PRE)? else {
        // llama.cpp goes on with `default` and warns that the quality will be degraded; wrong ids are no help to anyone.
        let why =
            "it says how words are cut; without it token ids would be a guess. Convert the model anew, or set the key";
        return Err(TokenizerError::missing(PRE, why));
    };
    PreTokenizer::by_name(name).ok_or_else(|| TokenizerError::Unknown {
        key: PRE.to_owned(),
        found: name.to_owned(),
        known: known_pre_tokenizers().collect::<Vec<_>>().join(", "),
    })
}

/// `tokenizer.ggml.NAME_token_id`. 4294967295 (-1) means that there is none.
fn special_id(
    metadata: &Metadata,
    name: &str,
    default: Option<u32>,
    tokens: usize,
) -> Result<Option<u32>, TokenizerError> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let id = match metadata.get_i64(&key)? {
        None => return Ok(default.filter(|&id| (id as usize) < tokens)),
        Some(-1 | 0xFFFF_FFFF) => return Ok(None),
        Some(id) => id,
    };
    match u32::try_from(id) {
        Ok(small) if (small as usize) < tokens => Ok(Some(small)),
        _ => Err(TokenizerError::malformed(&key, format!("an id below {tokens}"), id.to_string())),
    }
}
