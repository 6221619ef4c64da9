//! Pre-tokenizers of byte-level BPE: how a text is cut into words before any merge, by the name in `tokenizer.ggml.pre`.
//!
//! The expressions are data of the models: each is written in the `tokenizer.json` of the model the name stands for, and llama.cpp keeps the list of
//! names (`src/llama-vocab.cpp`, 0c1e57098). The tests compare every name with llama.cpp on one vocabulary.
//!
//! They are matched by the `regex` crate, in time linear in the text whatever the text holds. It has no look-ahead, and needs none: the only one these
//! expressions use is `\s+(?!\S)`, "a run of white space, without its last character if a word follows", which is applied to matches of `\s+` here.

use regex::Regex;

/// What a whitespace match gives back to the word that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spaces {
    /// Nothing: the expression has no `\s+(?!\S)`.
    Kept,
    /// Its last character (`\s+(?!\S)|\s+`).
    LastGivenBack,
    /// Its last character, unless that is a line break, which an earlier alternative (`\s*[\r\n]+`) has matched on purpose.
    LastGivenBackUnlessBreak,
}

/// One cut: every match and every gap between matches is a piece.
struct Step {
    pattern: &'static [&'static str],
    spaces: Spaces,
}

/// One row of the table.
struct Row {
    /// Values of `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// Cuts, each within the pieces of the one before.
    steps: &'static [Step],
    /// A word that is a token is that token, whatever the merges say.
    ignore_merges: bool,
    /// BOS comes first where the file does not say.
    adds_bos: bool,
}

const fn plain(pattern: &'static [&'static str]) -> Step {
    Step { pattern, spaces: Spaces::Kept }
}

const fn gives_back(pattern: &'static [&'static str]) -> Step {
    Step { pattern, spaces: Spaces::LastGivenBack }
}

const fn gives_back_unless_break(pattern: &'static [&'static str]) -> Step {
    Step { pattern, spaces: Spaces::LastGivenBackUnlessBreak }
}

/// English contractions, any case. Spelled out: `(?i:'s)` would also take the long s, U+017F.
const CONTRACTION: &str = r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])";
/// What the expressions since GPT-4 end with: symbols, line breaks, spaces.
const SYMBOLS_BREAKS_SPACES: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
/// The same where a slash may follow symbols, as a line break may.
const SYMBOLS_SLASH_BREAKS_SPACES: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
/// A word in which capitals come first: `HTTPServer` is `HTTP`, `Server` only where a small letter follows.
const CASED_WORD: [&str; 2] = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
];

const GPT2: Step = gives_back(&[r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"]);
const LLAMA3: Step =
    gives_back_unless_break(&[CONTRACTION, r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}", SYMBOLS_BREAKS_SPACES]);
const QWEN2: Step = gives_back_unless_break(&[CONTRACTION, r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}", SYMBOLS_BREAKS_SPACES]);
const QWEN35: Step = gives_back_unless_break(&[
    CONTRACTION,
    r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
]);
const DIGIT: Step = plain(&[r"\p{N}"]);
const UP_TO_THREE_DIGITS: Step = plain(&[r"\p{N}{1,3}"]);
const THREE_DIGITS: Step = plain(&[r"[0-9][0-9][0-9]"]);
const LINE_BREAK: Step = plain(&[r"[\r\n]"]);
const HAN_KANA: Step = plain(&[r"[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+"]);
const HAN_HANGUL: Step = plain(&[r"[\x{0800}-\x{9FA5}\x{AC00}-\x{D7FF}]+"]);
const DEEPSEEK3: Step = gives_back_unless_break(&[
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+",
]);
const BLOOM: Step = plain(&[r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+"]);
const GPT4O: Step = gives_back_unless_break(&[
    CASED_WORD[0],
    "(?:",
    CONTRACTION,
    ")?|",
    CASED_WORD[1],
    "(?:",
    CONTRACTION,
    r")?|\p{N}{1,3}",
    SYMBOLS_SLASH_BREAKS_SPACES,
]);
const TEKKEN: Step =
    gives_back_unless_break(&[CASED_WORD[0], "|", CASED_WORD[1], r"|\p{N}", SYMBOLS_SLASH_BREAKS_SPACES]);

/// The letters of deepseek-llm: cased scripts only, as its tokenizer.json lists them.
const DEEPSEEK_LLM_WORD: Step = plain(&[
    r"\s?[",
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}",
    r"\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}",
    r"\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}",
    r"\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}",
    r"\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}",
    r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}",
    r"\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}",
    r"\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}",
    r"\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}",
    r"\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}",
    r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}",
    r"\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}",
    r"]+",
]);

const fn row(names: &'static [&'static str], steps: &'static [Step]) -> Row {
    Row { names, steps, ignore_merges: false, adds_bos: false }
}

const TABLE: &[Row] = &[
    row(&["default"], &[plain(&[r"[\p{P}$+<=>^~|]+"]), GPT2, plain(&[r"\p{N}+"]), THREE_DIGITS]),
    Row {
        names: &["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        steps: &[LLAMA3],
        ignore_merges: true,
        adds_bos: true,
    },
    row(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    Row { names: &["glm4"], steps: &[LLAMA3], ignore_merges: true, adds_bos: false },
    Row {
        names: &["minicpm5"],
        steps: &[
            UP_TO_THREE_DIGITS,
            gives_back_unless_break(&[CONTRACTION, r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+", SYMBOLS_BREAKS_SPACES]),
        ],
        ignore_merges: true,
        adds_bos: false,
    },
    row(&["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2", "kormo"], &[QWEN2]),
    row(&["qwen35"], &[QWEN35]),
    row(
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "mellum",
            "a.x-4.0",
        ],
        &[GPT2],
    ),
    row(
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2],
    ),
    row(&["falcon"], &[plain(&[r"[\p{P}$+<=>^~|`]+"]), GPT2, THREE_DIGITS]),
    row(
        &["deepseek-llm"],
        &[
            LINE_BREAK,
            DEEPSEEK_LLM_WORD,
            plain(&[r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+"]),
            plain(&[r"\s+$"]),
            HAN_HANGUL,
            plain(&[r"\p{N}+"]),
        ],
    ),
    row(&["deepseek-coder"], &[LINE_BREAK, plain(&[r"\s?\p{L}+"]), plain(&[r"\s?\p{P}+"]), HAN_HANGUL, DIGIT]),
    row(&["deepseek-v3", "hunyuan-dense", "joyai-llm"], &[UP_TO_THREE_DIGITS, HAN_KANA, DEEPSEEK3]),
    Row { names: &["tekken"], steps: &[TEKKEN], ignore_merges: true, adds_bos: true },
    row(&["gpt-4o", "llama4", "kanana2", "minimax-m2"], &[GPT4O]),
    row(&["poro-chat", "bloom", "gpt3-finnish"], &[BLOOM]),
    row(&["viking"], &[BLOOM, DIGIT]),
    row(
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        &[gives_back_unless_break(&[
            CONTRACTION,
            r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+",
        ])],
    ),
    row(
        &["seed-coder"],
        &[gives_back_unless_break(&[
            CONTRACTION,
            r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+",
        ])],
    ),
];

/// A pre-tokenizer, ready to cut.
#[derive(Clone, Debug)]
pub(crate) struct PreTokenizer {
    steps: Vec<(Regex, Spaces)>,
    pub(crate) ignore_merges: bool,
    pub(crate) adds_bos: bool,
}

/// Every name of `tokenizer.ggml.pre` that is known.
pub fn known_pre_tokenizers() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|row| row.names.iter().copied())
}

impl PreTokenizer {
    /// The pre-tokenizer of this name, `None` if it is not known.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let row = TABLE.iter().find(|row| row.names.contains(&name))?;
        // The expressions are constants and every one is compiled by a test.
        let steps = row.steps.iter().map(|step| Some((Regex::new(&step.pattern.concat()).ok()?, step.spaces)));
        Some(Self { steps: steps.collect::<Option<_>>()?, ignore_merges: row.ignore_merges, adds_bos: row.adds_bos })
    }

    /// Calls `word` with the words of `text` in order; together they are `text`.
    pub(crate) fn split<'t>(&self, text: &'t str, word: &mut impl FnMut(&'t str)) {
        cut(&self.steps, text, word);
    }
}

fn cut<'t>(steps: &[(Regex, Spaces)], text: &'t str, word: &mut impl FnMut(&'t str)) {
    if text.is_empty() {
        return;
    }
    let Some(((regex, spaces), later)) = steps.split_first() else { return word(text) };
    let mut done = 0;
    while let Some(found) = regex.find_at(text, done).filter(|found| !found.is_empty()) {
        cut(later, &text[done..found.start()], word);
        let end = found.end() - given_back(*spaces, found.as_str(), &text[found.end()..]);
        cut(later, &text[found.start()..end], word);
        done = end;
    }
    cut(later, &text[done..], word);
}

/// Bytes that a match of white space leaves to what follows.
fn given_back(spaces: Spaces, found: &str, rest: &str) -> usize {
    if spaces == Spaces::Kept || rest.is_empty() || !found.chars().all(char::is_whitespace) {
        return 0;
    }
    let Some(last) = found.chars().next_back() else { return 0 };
    let alone = last.len_utf8() == found.len();
    // A run that ends where more white space begins was ended by its alternative, not by a word.
    let word_follows = !rest.starts_with(char::is_whitespace);
    let kept_break = spaces == Spaces::LastGivenBackUnlessBreak && matches!(last, '\r' | '\n');
    if alone || !word_follows || kept_break { 0 } else { last.len_utf8() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        let pre = PreTokenizer::by_name(name).expect("known");
        pre.split(text, &mut |w| words.push(w));
        words
    }

    #[test]
    fn every_row_compiles_and_loses_nothing() {
        let text = "It's  a\t\ttest\r\n\r\n  12345 — ñandú, 漢字かな 한국어 🦀 x=1;\u{a0}\u{3000}end  ";
        let mut seen = std::collections::HashSet::new();
        for name in known_pre_tokenizers() {
            assert!(seen.insert(name), "{name} twice");
            assert_eq!(words(name, text).concat(), text, "{name}");
            assert_eq!(words(name, ""), [""; 0], "{name}");
        }
        assert!(PreTokenizer::by_name("no such").is_none());
    }

    // Worked out by hand from the expressions.
    #[test]
    fn words_by_hand() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("gpt-2", "a   b\n\nc  ", &["a", "  ", " b", "\n", "\n", "c", "  "]),
            ("gpt-2", "we'll pay 1234!", &["we", "'ll", " pay", " 1234", "!"]),
            ("llama-bpe", "a   b\n\nc  ", &["a", "  ", " b", "\n\n", "c", "  "]),
            ("llama-bpe", "WE'LL pay 1234 \n x", &["WE", "'LL", " pay", " ", "123", "4", " \n", " x"]),
            ("qwen2", "v12", &["v", "1", "2"]),
            ("starcoder", "v 12", &["v", " ", "1", "2"]),
            ("tekken", "HTTPServer", &["HTTPServer"]),
            ("tekken", "camelCase", &["camel", "Case"]),
            ("falcon", "1234 a==b", &["123", "4", " a", "==", "b"]),
        ];
        for (name, text, expected) in cases {
            assert_eq!(words(name, text), *expected, "{name}: {text:?}");
        }
    }
}
