//! Verifying: each rule is found where it is broken, and what `verify` says of this crate's reader is what that reader does.

mod common;
#[path = "common/raw.rs"]
mod raw;

use gguf_format::verify::{Reader, Rule, readable, verify};
use gguf_format::{GgmlType, Gguf};
use proptest::collection::vec;
use proptest::prelude::*;
use raw::{Raw, array, string, tensor};

fn align(raw: &mut Raw, alignment: u32) {
    raw.key("general.alignment", 4, &alignment.to_le_bytes());
}

fn nested(depth: usize) -> Vec<u8> {
    let mut out: Vec<u8> = (1..depth).flat_map(|_| [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat()).collect();
    out.extend(array(4, &[]));
    out
}

type Case = (Rule, fn(&mut Raw), &'static str);

/// A file that breaks the rule, the least it can break beside, and words of the message.
const CASES: &[Case] = &[
    (Rule::BadMagic, |r| r.magic = *b"GGML", "header at offset 0x0: \"GGML\""),
    (Rule::BadVersion, |r| r.version = 4, "header at offset 0x4: version 4"),
    (Rule::Version1, |r| *r = Raw { version: 1, ..Raw::empty() }, "version 1"),
    (Rule::BigEndian, |r| *r = Raw { version: 3 << 24, ..Raw::empty() }, "big-endian"),
    (Rule::EndsEarly, |r| r.n_keys = Some(1 << 40), "1099511627776 keys, but the file has room for"),
    (Rule::KeyEmpty, |r| r.key("", 0, &[1]), "key number 3 at offset 0xa5: an empty key"),
    (Rule::KeyTooLong, |r| r.key(&"k".repeat(65_536), 0, &[1]), "65536 bytes long"),
    (Rule::KeyNotUtf8, |r| r.keys[0].0 = b"\xffx".to_vec(), "key `\u{fffd}x` at offset 0x18: not UTF-8"),
    (Rule::KeyReserved, |r| r.key("GGUF.version", 0, &[1]), "gguf-py uses"),
    (
        Rule::DuplicateKey,
        |r| r.key("llama.block_count", 0, &[1]),
        "key `llama.block_count` at offset 0xa5: the key a second time",
    ),
    (Rule::BadValueType, |r| r.key("k", 13, &[0; 8]), "key `k` at offset 0xae: value type 13"),
    (Rule::BadValueType, |r| r.key("k", 9, &array(13, &[])), "value type 13"),
    (Rule::NestedArray, |r| r.key("k", 9, &nested(2)), "key `k`"),
    (Rule::NestedArray, |r| r.key("k", 9, &array(9, &[])), "key `k`"),
    (Rule::DeepArray, |r| r.key("k", 9, &nested(5)), "more than 4 deep"),
    (Rule::TooDeepArray, |r| r.key("k", 9, &nested(10_000)), "more than 64 deep"),
    (Rule::BoolNotBit, |r| r.key("k", 7, &[2]), "a boolean of 2"),
    (Rule::BoolNotBit, |r| r.key("k", 9, &array(7, &[&[1], &[0], &[255]])), "key `k` at offset 0xc0: a boolean of 255"),
    (Rule::AlignmentType, |r| r.key("general.alignment", 10, &[32, 0, 0, 0, 0, 0, 0, 0]), "u64 in place of u32"),
    (Rule::AlignmentNotPower, |r| align(r, 48), "48 is not a power of two"),
    (Rule::AlignmentZero, |r| align(r, 0), "an alignment of 0"),
    (Rule::NameTooLong, |r| r.tensors[0].name = vec![b'n'; 64], "a name of 64 bytes"),
    (Rule::NameNotUtf8, |r| r.tensors[0].name = b"\xff".to_vec(), "tensor `\u{fffd}` at offset 0xa5"),
    (Rule::NameNul, |r| r.tensors[0].name = b"w\0".to_vec(), "tensor `w\\0`"),
    (Rule::DuplicateTensor, |r| r.tensors[1].name = b"w".to_vec(), "tensor `w` at offset 0xce: the name a second time"),
    (Rule::TooManyDims, |r| r.tensors[0].ne = vec![1; 5], "5 dimensions"),
    (Rule::TooLarge, |r| r.tensors[0].ne = vec![1 << 62, 4], "the product of [4, 4611686018427387904]"),
    (
        Rule::TooLarge,
        |r| {
            r.tensors[0].ne = vec![1 << 61];
            r.tensors[0].ty = 28
        },
        "more than 2^64 bytes",
    ),
    (Rule::UnknownTensorType, |r| r.tensors[1].ty = 99, "tensor `b` at offset 0xe3: tensor type 99"),
    (Rule::UnknownTensorType, |r| r.tensors[1].ty = 4, "tensor type 4"),
    (
        Rule::NotInGgufPy,
        |r| (r.tensors[1].ne, r.tensors[1].ty) = (vec![64], GgmlType::Q2_0.id()),
        "Q2_0, which gguf-py",
    ),
    (
        Rule::NotInCandle,
        |r| (r.tensors[1].ne, r.tensors[1].ty) = (vec![32], GgmlType::IQ4_NL.id()),
        "IQ4_NL, which candle",
    ),
    (
        Rule::PartialRow,
        |r| (r.tensors[0].ne, r.tensors[0].ty) = (vec![16, 2], 2),
        "rows of 16 values, which are not whole blocks of 32",
    ),
    (Rule::PartialRow, |r| r.tensors[0].ty = 2, "rows of 4 values"),
    (Rule::ScalarTensor, |r| r.tensors[0].ne.clear(), "no dimensions"),
    (Rule::OffsetNotAligned, |r| r.tensors[1].offset = 31, "offset 31, which is not a multiple of 32"),
    (
        Rule::OffsetNotNext,
        |r| {
            r.tensors[1].offset = 64;
            r.data.resize(96, 0)
        },
        "tensor `b` at offset 0xe7: at 64 of the data section, not at 32",
    ),
    (Rule::OffsetNotNext, |r| r.tensors.swap(0, 1), "tensor `b`"),
    (Rule::Overlap, |r| r.tensors[1].offset = 0, "where tensor `"),
    (Rule::DataPastEnd, |r| r.data.truncate(51), "20 bytes at 256 + 32, in a file of 307"),
    (Rule::DataPastEnd, |r| r.tensors[1].offset = u64::MAX - 31, "tensor `b`"),
    (Rule::EmptyPastEnd, |r| r.tensors.push(tensor("e", &[0], 0, 1 << 20)), "tensor `e`"),
    (
        Rule::NoDataSection,
        |r| {
            *r = Raw::empty();
            r.tensors.push(tensor("e", &[0], 0, 0));
            r.alignment = 1
        },
        "should start at 64",
    ),
    (Rule::LastPaddingMissing, |r| r.data.truncate(52), "308 bytes, 320 with the padding"),
    (Rule::BytesBehind, |r| r.data.resize(100, 1), "36 bytes behind"),
];

#[test]
fn every_rule_is_found() {
    for (rule, break_it, words) in CASES {
        let mut raw = Raw::valid();
        break_it(&mut raw);
        let bytes = raw.bytes();
        let report = verify(&bytes);
        let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        let finding = report.findings.iter().find(|f| f.rule == *rule);
        let finding = finding.unwrap_or_else(|| panic!("{}: not found, but {found:?}", rule.code()));
        assert!(finding.to_string().contains(words), "{}: {finding}", rule.code());
        for reader in Reader::ALL {
            let by_rules = report.findings.iter().any(|f| f.rule.refused_by().contains(&reader));
            assert_eq!(report.refusal(reader).is_some(), by_rules, "{}", rule.code());
        }
        assert_eq!(report.refusal(Reader::GgufFormat).is_some(), readable(&bytes).is_err(), "{}", rule.code());
    }
    // Counting to 2^20 takes a large file: `beyond_limits` has its own test.
    let tested: Vec<Rule> = CASES.iter().map(|c| c.0).chain([Rule::BeyondLimits]).collect();
    for rule in Rule::ALL {
        assert!(tested.contains(rule), "{} has no case", rule.code());
        assert_eq!(Rule::ALL.iter().filter(|r| r.code() == rule.code()).count(), 1);
    }
}

#[test]
fn all_is_found_not_only_the_first() {
    let mut raw = Raw::valid();
    raw.key("general.architecture", 0, &[1]);
    raw.key("flag", 7, &[3]);
    raw.tensors[1].name = b"w".to_vec();
    raw.tensors[1].offset = 0;
    let report = verify(&raw.bytes());
    let codes: Vec<&str> = report.findings.iter().map(|f| f.rule.code()).collect();
    assert_eq!(
        codes,
        ["duplicate_key", "bool_not_bit", "duplicate_tensor", "offset_not_next", "overlap", "bytes_behind"]
    );
    assert_eq!((report.keys, report.tensors, report.version), (5, 2, Some(3)));
    let first = |reader| report.refusal(reader).map(|f| f.rule.code());
    assert_eq!(first(Reader::LlamaCpp), Some("duplicate_key"));
    assert_eq!(first(Reader::Candle), Some("bool_not_bit"));
}

#[test]
fn findings_are_bounded() {
    let mut raw = Raw::empty();
    for _ in 0..(1 << 20) + 1 {
        raw.key("k", 0, &[1]);
    }
    let bytes = raw.bytes();
    let report = verify(&bytes);
    assert_eq!((report.findings.len(), report.left_out), (1000, (1 << 20) + 1 - 1000));
    assert_eq!(report.findings[0].rule, Rule::BeyondLimits);
    assert!(readable(&bytes).is_err());
}

#[test]
fn files_of_llama_cpp_are_clean() {
    for folder in ["data/gguf", "golden/llama_cpp"] {
        let Some(folder) = common::shared(folder) else { continue };
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "gguf") {
                continue;
            }
            let report = verify(&std::fs::read(&path).unwrap());
            let found: Vec<_> = report.findings.iter().filter(|f| f.rule != Rule::NotInCandle).collect();
            assert!(found.is_empty(), "{}: {found:?}", path.display());
            assert!(report.keys > 10);
        }
    }
}

fn agrees(bytes: &[u8]) {
    let report = verify(bytes);
    let parsed = readable(bytes);
    assert_eq!(report.refusal(Reader::GgufFormat).is_some(), parsed.is_err(), "{parsed:?}: {:?}", report.findings);
    // What the strict check finds in a file that was read, llama.cpp refuses; but for two things that it does not look at.
    if let Ok(gguf) = Gguf::parse(bytes, &gguf_format::Limits::default()) {
        let departs = gguf.departures().iter().any(|d| !d.reason.contains("NUL") && !d.reason.contains("padding"));
        let refused = report.findings.iter().any(|f| {
            f.rule.refused_by().contains(&Reader::LlamaCpp)
                && !matches!(f.rule, Rule::Version1 | Rule::BigEndian | Rule::NoDataSection)
        });
        assert_eq!(departs, refused, "{:?} {:?}", gguf.departures(), report.findings);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn verdict_on_this_reader_is_its_own(
        changes in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 0u8..10]), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        extra in vec(any::<u8>(), 0..3),
        keys in vec((0u32..14, vec(0u8..10, 0..30)), 0..2),
    ) {
        let mut raw = Raw::valid();
        raw.key("n", 9, &array(9, &[&array(7, &[&[1]]), &array(8, &[&string(b"x")])]));
        for (i, (ty, value)) in keys.iter().enumerate() {
            raw.key(&format!("k{i}"), *ty, value);
        }
        let mut bytes = raw.bytes();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        bytes.extend(extra);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        agrees(&bytes);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..400), version in 1u8..4, big in any::<bool>()) {
        agrees(&bytes);
        let version = if big { [0, 0, 0, version] } else { [version, 0, 0, 0] };
        agrees(&[b"GGUF", &version, &bytes[..]].concat());
    }
}
