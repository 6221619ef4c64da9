//! Tokenizers that are broken, and texts that are strange: an error or a result, never a panic.

use gguf_format::Metadata;
use proptest::prelude::*;
use quant_runtime::{Error, Tokenizer};
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

fn strings(strings: &[&str]) -> Vec<String> {
    strings.iter().map(|s| (*s).to_owned()).collect()
}

/// A good `gpt2` vocabulary of five tokens.
fn bpe() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", "gpt-2");
    metadata.set(TOKENS, strings(&["a", "b", "ab", "Ġ", "<|end|>"]));
    metadata.set(KINDS, vec![1i32, 1, 1, 1, 3]);
    metadata.set(MERGES, strings(&["a b"]));
    metadata.set("tokenizer.ggml.eos_token_id", 4u32);
    metadata
}

/// A good `llama` vocabulary.
fn spm() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.model", "llama");
    metadata.set(TOKENS, strings(&["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁ab"]));
    metadata.set(KINDS, vec![2i32, 3, 3, 1, 1, 1, 1, 1]);
    metadata.set(SCORES, vec![0f32, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0]);
    metadata
}

fn load(metadata: &Metadata) -> Result<Tokenizer, Error> {
    Tokenizer::from_gguf_metadata(metadata, "file.gguf")
}

#[test]
fn good_twins() {
    let tokenizer = load(&bpe()).expect("loads");
    assert_eq!(tokenizer.encode("ab ba<|end|>", false, true).expect("encodes"), [2, 3, 1, 0, 4]);
    let tokenizer = load(&spm()).expect("loads");
    assert_eq!(tokenizer.encode("ab?", true, true).expect("encodes"), [1, 7, 0]);
    assert_eq!(tokenizer.decode(&[1, 7, 4], false).expect("decodes"), "aba");
}

#[test]
fn defects_are_named() {
    type Defect = fn(&mut Metadata);
    let cases: &[(&str, fn() -> Metadata, Defect)] = &[
        ("key `tokenizer.ggml.model` is missing", bpe, |m| drop(m.remove("tokenizer.ggml.model"))),
        ("`tokenizer.ggml.model` is `wordpiece`, which is not known here; known: gpt2, llama", bpe, |m| {
            m.set("tokenizer.ggml.model", "wordpiece")
        }),
        ("`tokenizer.ggml.pre` is missing", bpe, |m| drop(m.remove("tokenizer.ggml.pre"))),
        ("`tokenizer.ggml.pre` is `gpt-9`, which is not known here; known: default, llama3", bpe, |m| {
            m.set("tokenizer.ggml.pre", "gpt-9")
        }),
        ("key `tokenizer.ggml.tokens` is missing", bpe, |m| drop(m.remove(TOKENS))),
        ("key `tokenizer.ggml.tokens`", bpe, |m| m.set(TOKENS, vec![1i32, 2])),
        ("expected every token once, found \"a\" as token 0 and as token 3", bpe, |m| {
            m.set(TOKENS, strings(&["a", "b", "ab", "a", "c"]))
        }),
        ("`tokenizer.ggml.token_type`: expected 5 elements, one for each token, found 4 elements", bpe, |m| {
            m.set(KINDS, vec![1i32; 4])
        }),
        ("`tokenizer.ggml.token_type`: expected 1 to 6, found 77 for token 2", bpe, |m| {
            m.set(KINDS, vec![1i32, 1, 77, 1, 3])
        }),
        ("key `tokenizer.ggml.merges` is missing", bpe, |m| drop(m.remove(MERGES))),
        ("expected two strings with a space between, found \"ab\" as merge 1", bpe, |m| {
            m.set(MERGES, strings(&["a b", "ab"]))
        }),
        ("found \"\" as merge 0", bpe, |m| m.set(MERGES, strings(&[""]))),
        ("found \"a \" as merge 0", bpe, |m| m.set(MERGES, strings(&["a "]))),
        ("`tokenizer.ggml.eos_token_id`: expected an id below 5, found 5", bpe, |m| {
            m.set("tokenizer.ggml.eos_token_id", 5u32)
        }),
        ("`tokenizer.ggml.bos_token_id` is missing", bpe, |m| m.set("tokenizer.ggml.add_bos_token", true)),
        ("key `tokenizer.ggml.add_bos_token`", bpe, |m| m.set("tokenizer.ggml.add_bos_token", 1u32)),
        ("`tokenizer.ggml.scores` is missing", spm, |m| drop(m.remove(SCORES))),
        ("`tokenizer.ggml.scores`: expected 8 elements", spm, |m| m.set(SCORES, vec![0f32; 9])),
        ("`tokenizer.ggml.scores`: expected numbers, found NaN for token 3", spm, |m| {
            m.set(SCORES, vec![0f32, 0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0])
        }),
    ];
    for (message, good, defect) in cases {
        let mut metadata = good();
        defect(&mut metadata);
        let error = load(&metadata).expect_err(message).to_string();
        assert!(error.starts_with("file.gguf: ") && error.contains(message), "{error}\nwithout {message}");
    }
}

#[test]
fn odd_but_good() {
    let mut metadata = bpe();
    // Merges between strings that are no tokens: their bytes come out.
    metadata.set(MERGES, strings(&["b a", "ba b", "a b", "a b", "x y"]));
    let tokenizer = load(&metadata).expect("loads");
    assert_eq!(tokenizer.encode("bab", false, false).expect("encodes"), [1, 0, 1]);
    // A byte without token is left out, as by llama.cpp and `tokenizers`.
    assert_eq!(tokenizer.encode("axb", false, false).expect("encodes"), [0, 1]);
    // -1 and ids of tokens without text.
    metadata.set("tokenizer.ggml.padding_token_id", u32::MAX);
    metadata.set("tokenizer.ggml.bos_token_id", u32::MAX);
    metadata.set(TOKENS, strings(&["a", "b", "", "", "<|end|>"]));
    let tokenizer = load(&metadata).expect("loads");
    assert_eq!(tokenizer.bos(), None);
    assert_eq!(tokenizer.token_text(2).as_deref(), Some("[EMPTY_2]"));
    assert!(tokenizer.piece(5).is_err());
    assert!(tokenizer.decode(&[0, 9], false).is_err());
    assert_eq!(tokenizer.token_text(5), None);
    // Without an unknown token a byte that has no token is an error where bytes are the last resort.
    let mut metadata = spm();
    metadata.set("tokenizer.ggml.unknown_token_id", u32::MAX);
    let error = load(&metadata).expect("loads").encode("a?", false, false).expect_err("no token").to_string();
    assert!(error.contains("no token for byte 0x3f"), "{error}");
    // An empty vocabulary tokenizes nothing.
    let mut metadata = bpe();
    for key in [KINDS, "tokenizer.ggml.eos_token_id"] {
        metadata.remove(key);
    }
    metadata.set(TOKENS, Vec::<String>::new());
    metadata.set(MERGES, Vec::<String>::new());
    assert_eq!(load(&metadata).expect("loads").encode("abc", true, true).expect("encodes"), [0; 0]);
}

#[test]
fn long_words_take_no_long_time() {
    for metadata in [bpe(), spm()] {
        let tokenizer = load(&metadata).expect("loads");
        for text in [
            "ab".repeat(500_000),
            " ".repeat(1_000_000),
            "a\n".repeat(300_000),
            "<|end|>".repeat(100_000),
            "é".repeat(300_000),
        ] {
            let ids = tokenizer.encode(&text, true, true).expect("encodes");
            assert!(ids.len() <= text.len() + 2);
        }
    }
}

fn bundled() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket-6m")
}

#[test]
fn directories() {
    let good = fs::read_to_string(bundled().join("tokenizer.json")).expect("reads");
    // File, content, what the error says; `None` for the content removes the file.
    let cases: &[(&str, Option<&str>, &str)] = &[
        ("tokenizer.json", None, "`tokenizer.json` is missing"),
        ("tokenizer.json", Some(""), "tokenizer.json: EOF"),
        ("tokenizer.json", Some("{}"), "tokenizer.json"),
        ("tokenizer.json", Some("[1, 2"), "tokenizer.json"),
        (
            "tokenizer.json",
            Some("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}"),
            "tokenizer.json",
        ),
        ("tokenizer_config.json", Some("{"), "tokenizer_config.json: JSON"),
        (
            "tokenizer_config.json",
            Some("{\"bos_token\": \"no such token\"}"),
            "tokenizer_config.json: bos_token`: expected a token of tokenizer.json",
        ),
        (
            "generation_config.json",
            Some("{\"eos_token_id\": [1, -1]}"),
            "generation_config.json: eos_token_id`: expected a token id",
        ),
        ("config.json", Some("{\"eos_token_id\": \"x\"}"), "config.json: eos_token_id`"),
    ];
    for (file, content, message) in cases {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("tokenizer.json"), &good).expect("writes");
        match content {
            Some(content) => fs::write(dir.path().join(file), content).expect("writes"),
            None => fs::remove_file(dir.path().join(file)).expect("removes"),
        }
        let error = Tokenizer::from_hf_dir(dir.path()).expect_err(message).to_string();
        assert!(error.contains(message), "{error}\nwithout {message}");
    }
}

#[test]
fn a_decoder_that_is_not_known_is_an_error() {
    let good = fs::read_to_string(bundled().join("tokenizer.json")).expect("reads");
    let mut json: serde_json::Value = serde_json::from_str(&good).expect("JSON");
    for decoder in [serde_json::Value::Null, serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true})]
    {
        json["decoder"] = decoder;
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("tokenizer.json"), json.to_string()).expect("writes");
        let error = Tokenizer::from_hf_dir(dir.path()).expect_err("refused").to_string();
        assert!(error.contains("`decoder` is"), "{error}");
    }
}

/// The bundled tokenizer's vocabulary as a GGUF file has it, with any pre-tokenizer.
fn metadata_of_bundled(pre: &str) -> Metadata {
    let text = fs::read_to_string(bundled().join("tokenizer.json")).expect("reads");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let vocab = json["model"]["vocab"].as_object().expect("vocab");
    let added = json["added_tokens"].as_array().expect("added tokens");
    let mut tokens: Vec<String> = vec![String::new(); 2048];
    let mut kinds = vec![1i32; 2048];
    for (token, id) in vocab {
        tokens[id.as_u64().expect("id") as usize] = token.clone();
    }
    for token in added {
        let id = token["id"].as_u64().expect("id") as usize;
        tokens[id] = token["content"].as_str().expect("text").to_owned();
        kinds[id] = 3;
    }
    let merge = |m: &serde_json::Value| match m {
        serde_json::Value::String(m) => m.clone(),
        pair => format!("{} {}", pair[0].as_str().expect("left"), pair[1].as_str().expect("right")),
    };
    let merges: Vec<String> = json["model"]["merges"].as_array().expect("merges").iter().map(merge).collect();
    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", pre);
    metadata.set(TOKENS, tokens);
    metadata.set(KINDS, kinds);
    metadata.set(MERGES, merges);
    metadata.set("tokenizer.ggml.bos_token_id", 0u32);
    metadata.set("tokenizer.ggml.eos_token_id", 1u32);
    metadata
}

static BUNDLED: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_hf_dir(bundled()).expect("loads"));
static AS_GGUF: LazyLock<Tokenizer> = LazyLock::new(|| load(&metadata_of_bundled("llama-bpe")).expect("loads"));
static EVERY_PRE: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let known = quant_runtime::tokenizer::known_pre_tokenizers();
    known.map(|pre| load(&metadata_of_bundled(pre)).expect("loads")).collect()
});
static SPM: LazyLock<Tokenizer> = LazyLock::new(|| load(&spm()).expect("loads"));

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two implementations agree on any text: the `tokenizers` crate, and the one for GGUF files.
    #[test]
    fn equal_to_the_tokenizers_crate(text in "(?s)(.|[ \\n\\ta'sLl1-9]|<\\|end_of_text\\|>){0,60}", parse in any::<bool>()) {
        let ids = AS_GGUF.encode(&text, true, parse).expect("encodes");
        prop_assert_eq!(&ids, &BUNDLED.encode(&text, true, parse).expect("encodes"));
        prop_assert_eq!(AS_GGUF.decode(&ids, true).expect("decodes"), format!("<|begin_of_text|>{text}"));
        let mut stream = AS_GGUF.stream(true);
        let mut streamed: String = ids.iter().map(|&id| stream.push(id).expect("piece")).collect();
        streamed.push_str(&stream.finish());
        prop_assert_eq!(streamed, format!("<|begin_of_text|>{text}"));
    }

    #[test]
    fn every_pre_tokenizer_keeps_every_byte(text in "(?s)(.|[ \\n\\r\\ta'sLl1-9!/|]){0,40}") {
        for tokenizer in EVERY_PRE.iter() {
            let ids = tokenizer.encode(&text, false, false).expect("encodes");
            prop_assert_eq!(&tokenizer.decode(&ids, false).expect("decodes"), &text);
        }
    }

    #[test]
    fn any_ids_decode_or_are_refused(ids in proptest::collection::vec(0u32..3000, 0..20)) {
        for tokenizer in [&*BUNDLED, &*AS_GGUF, &*SPM] {
            let good = ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size());
            prop_assert_eq!(tokenizer.decode(&ids, false).is_ok(), good);
        }
    }

    #[test]
    fn any_text_through_spm(text in "(?s)(.|[ ab]){0,40}") {
        SPM.encode(&text, true, true).expect("encodes");
    }

    /// Any change of any key: an error, or a tokenizer that works.
    #[test]
    fn random_metadata(
        tokens in proptest::collection::vec("[abĠ▁<>0x1|]{0,4}", 0..8),
        kinds in proptest::collection::vec(-1i32..8, 0..8),
        scores in proptest::collection::vec(any::<f32>(), 0..8),
        merges in proptest::collection::vec("[abĠ ]{0,5}", 0..6),
        ids in proptest::collection::vec(0u32..9, 3),
        is_spm in any::<bool>(),
        fit in any::<bool>(),
        text in "[ab ▁<>x0]{0,10}",
    ) {
        let mut metadata = if is_spm { spm() } else { bpe() };
        let n = tokens.len();
        let fitted = |len: usize| if fit { n.min(len) } else { len };
        let mut kinds = kinds;
        let mut scores = scores;
        if fit {
            kinds.resize(n, 1);
            scores.resize(n, 0.0);
        }
        kinds.truncate(fitted(kinds.len()));
        metadata.set(TOKENS, tokens);
        metadata.set(KINDS, kinds);
        metadata.set(SCORES, scores);
        metadata.set(MERGES, merges);
        for (key, id) in ["bos", "eos", "unknown"].iter().zip(ids) {
            metadata.set(&format!("tokenizer.ggml.{key}_token_id"), id);
        }
        if let Ok(tokenizer) = load(&metadata)
            && let Ok(ids) = tokenizer.encode(&text, true, true) {
                tokenizer.decode(&ids, true).expect("its own ids decode");
            }
    }

    /// A bit of tokenizer.json changed: an error, or a tokenizer that works.
    #[test]
    fn damaged_tokenizer_json(at in 0usize..1_000_000, byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = fs::read(bundled().join("tokenizer.json")).expect("reads");
        let at = at % bytes.len().min(if cut { usize::MAX } else { 3000 });
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("tokenizer.json"), bytes).expect("writes");
        if let Ok(tokenizer) = Tokenizer::from_hf_dir(dir.path()) {
            let _ = tokenizer.encode("Some text, 123.", true, true);
        }
    }
}
