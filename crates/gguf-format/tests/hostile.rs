//! Files with one thing wrong each, made from a valid twin; and files that only look wrong.
//!
//! The first 34 are those of ggml's own test of its reader (tests/test-gguf.cpp of llama.cpp, the names in capitals there), with ggml's
//! verdict. Two are gguf-py's. The rest are limits and places that those do not reach.

#[path = "common/raw.rs"]
mod raw;

use gguf_format::{Error, GgmlType, Gguf, Limits, ValueView};
use raw::{Raw, array, string};

#[derive(Debug)]
enum Verdict {
    /// Read, and ggml reads it too.
    Loads,
    /// Read here; ggml refuses it, and `strict_check` says so with these words.
    Departs(&'static str),
    /// Refused with these words.
    Refused(&'static str),
}
use Verdict::{Departs, Loads, Refused};

/// One test for each line: the valid file, changed, and what becomes of it. The valid twin of all is [`Raw::valid`].
macro_rules! cases {
    ($($name:ident: $change:expr, $verdict:expr;)*) => {
        $(#[test]
        fn $name() {
            check($change, $verdict);
        })*
    };
}

fn align(raw: &mut Raw, alignment: u32) {
    raw.key("general.alignment", 4, &alignment.to_le_bytes());
}

/// Those of ggml's own test of its reader, with ggml's verdict.
mod ggml {
    use super::*;

    cases! {
        header_bad_magic: |r| r.magic = *b"FUGG", Refused("the magic bytes \"GGUF\", found \"FUGG\"");
        header_bad_version_0: |r| r.version = 0, Refused("version 1, 2 or 3, found 0");
        // ggml has given version 1 up; here it is read, and this file, whose counts are wider than that version's, is none.
        header_bad_version_1: |r| r.version = 1, Refused("at most 4 dimensions");
        header_bad_version_future: |r| r.version = 4, Refused("version 1, 2 or 3, found 4");
        header_bad_n_tensors: |r| r.n_tensors = Some(u64::MAX), Refused("tensors, found 18446744073709551615");
        header_bad_n_kv: |r| r.n_keys = Some(u64::MAX), Refused("keys, found 18446744073709551615");
        header_empty: |r| *r = Raw::empty(), Loads;
        kv_bad_key_size: |r| r.key_len = Some(u64::MAX), Refused("key number 0 at offset 0x18: expected at most");
        kv_empty_key: |r| r.keys[1].0.clear(), Refused("key number 1 at offset");
        kv_bad_type: |r| r.key("k", 13, &[0; 8]), Refused("key `k` at offset");
        kv_bad_type_of_array: |r| r.key("k", 9, &array(13, &[])), Refused("an element type from 0 to 12, found 13");
        kv_duplicate_key: |r| r.key("llama.block_count", 4, &[0; 4]), Refused("a key used once");
        kv_bad_align: |r| align(r, 13), Refused("`general.alignment` at offset");
        kv_wrong_type_align: |r| r.key("general.alignment", 5, &[32, 0, 0, 0]), Refused("found i32 32");
        kv_success: |r| (0..100).for_each(|i| r.key(&format!("k{i}"), 10, &[i; 8])), Loads;
        tensors_bad_name_size: |r| r.tensors[0].name = vec![b'n'; 64], Refused("at most 63 bytes of string, found 64");
        tensors_bad_n_dims: |r| r.tensors[0].ne = vec![1; 5], Refused("tensor `w` at offset");
        tensors_bad_shape: |r| r.tensors[0].ne[1] = u64::MAX, Refused("a product below 2^63");
        tensors_zero_dim: |r| {
            r.tensors[0].ne[1] = 0;
            r.tensors[1].offset = 0;
        },
        Loads;
        tensors_ne_too_big: |r| r.tensors[0].ne = vec![4 * 0x7fff_ffff; 2], Refused("a product below 2^63");
        tensors_nbytes_too_big: |r| {
            r.tensors[0].ne = vec![1 << 31, (1 << 31) - 1];
            r.tensors[0].ty = GgmlType::F64.id();
        },
        Refused("a size below 2^64 bytes");
        tensors_nbytes_pad_wrap: |r| r.tensors[0].ne = vec![4, (1 << 30) - 1, (1 << 30) + 1],
        Refused("data inside the file");
        tensors_bad_type: |r| r.tensors[1].ty = 43, Departs("tensor `b`: unknown type 43");
        tensors_bad_offset: |r| r.tensors[0].offset = u64::MAX, Refused("an offset that is a multiple of 32");
        tensors_duplicate_name: |r| r.tensors[1].name = b"w".to_vec(), Refused("a name used once");
        tensors_bad_align: |r| align(r, 13), Refused("u32, a power of two, found u32 13");
        tensors_inconsistent_align: |r| r.tensors[1].offset = 31,
        Refused("an offset that is a multiple of 32, found 31");
        tensors_success: |_| {}, Loads;
        tensors_custom_align: |r| {
            align(r, 1);
            r.alignment = 1;
        },
        Loads;
        data_success: |_| {}, Loads;
        data_not_enough_data: |r| r.data.truncate(51), Refused("tensor `b` at offset");
        data_bad_align: |r| align(r, 0), Refused("u32, a power of two, found u32 0");
        data_inconsistent_align: |r| {
            align(r, 64);
            r.alignment = 64;
        },
        Refused("an offset that is a multiple of 64, found 32");
        data_mem_size_overflow: |r| {
            for (i, t) in r.tensors.iter_mut().enumerate() {
                t.ty = GgmlType::I8.id();
                t.ne = vec![0x7fff_ffff_ffff_ffc0];
                t.offset = 0x7fff_ffff_ffff_ffc0 * i as u64;
            }
        },
        Refused("data inside the file");
        data_custom_align: |r| {
            align(r, 64);
            r.alignment = 64;
            r.tensors[1].offset = 64;
            r.data.resize(128, 0);
        },
        Loads;
    }
}

/// Those of gguf-py's test of its reader.
mod gguf_py {
    use super::*;

    cases! {
        n_dims_million: |r| r.tensors[0].n_dims = Some(1_000_000), Refused("at most 4 dimensions, found 1000000");
        // (2^62 + 1) * 4 is 4 modulo 2^64.
        dims_product_wraps_to_4: |r| r.tensors[0].ne = vec![(1 << 62) + 1, 4], Refused("a product below 2^63");
    }
}

/// Limits and places that those do not reach.
mod beyond {
    use super::*;

    cases! {
        version_2: |r| r.version = 2, Loads;
        big_endian_version_4: |r| r.version = 4u32.swap_bytes(), Refused("found 4, big endian");
        too_many_keys: |r| r.n_keys = Some(4), Refused("");
        too_many_tensors: |r| r.n_tensors = Some(3), Refused("");
        key_not_utf8: |r| r.keys[0].0 = b"\xffx".to_vec(), Refused("a name in UTF-8");
        name_not_utf8: |r| r.tensors[0].name = b"\xff".to_vec(), Refused("a name in UTF-8");
        name_of_63_bytes: |r| r.tensors[0].name = vec![b'n'; 63], Loads;
        name_with_nul: |r| r.tensors[0].name = b"w\0".to_vec(), Departs("a NUL in the name");
        string_past_end: |r| r.key("k", 8, &(1u64 << 20).to_le_bytes()), Refused("key `k`");
        string_2_to_63: |r| r.key("k", 8, &(1u64 << 63).to_le_bytes()), Refused("key `k`");
        array_past_end: |r| r.key("k", 9, &array_of(10, 1 << 20)), Refused("key `k`");
        array_times_size_wraps: |r| r.key("k", 9, &array_of(10, (1 << 61) + 1)), Refused("key `k`");
        array_of_strings_past_end: |r| r.key("k", 9, &array_of(8, 1 << 40)), Refused("key `k`");
        array_string_past_end: |r| r.key("k", 9, &array(8, &[&(1u64 << 40).to_le_bytes()])), Refused("key `k`");
        array_empty: |r| r.key("k", 9, &array(12, &[])), Loads;
        array_of_arrays: |r| r.key("k", 9, &nested(2)), Departs("key `k`: an array of arrays");
        array_nested_4_deep: |r| r.key("k", 9, &nested(4)), Departs("key `k`: an array of arrays");
        array_nested_5_deep: |r| r.key("k", 9, &nested(5)), Refused("arrays nested at most 4 deep");
        array_nested_10000_deep: |r| r.key("k", 9, &nested(10_000)), Refused("arrays nested at most 4 deep");
        alignment_2_to_31: |r| align(r, 1 << 31), Refused("multiple of 2147483648");
        alignment_u64: |r| r.key("general.alignment", 10, &[32, 0, 0, 0, 0, 0, 0, 0]), Refused("found u64 32");
        scalar_tensor: |r| r.tensors[0].ne.clear(), Loads;
        rows_not_whole_blocks: |r| r.tensors[0].ty = GgmlType::Q4_0.id(),
        Refused("whole blocks of 32 for Q4_0, found 4");
        zero_dim_beside_a_huge_one: |r| r.tensors[0].ne = vec![0, u64::MAX], Refused("a product below 2^63");
        removed_type_4: |r| r.tensors[1].ty = 4, Departs("unknown type 4");
        type_2_to_32_less_1: |r| r.tensors[1].ty = u32::MAX, Departs("unknown type 4294967295");
        unknown_type_without_a_byte: |r| {
            r.tensors[1].ty = 99;
            r.tensors[1].offset = 64;
        },
        Refused("data of its own");
        offset_past_end: |r| r.tensors[1].offset = 1 << 40, Refused("data inside the file");
        offset_wraps: |r| r.tensors[1].offset = u64::MAX - 31, Refused("data inside the file");
        tensors_overlap: |r| r.tensors[1].offset = 0, Refused("tensors that do not overlap");
        tensor_inside_another: |r| r.tensors[0].ne = vec![13], Refused("20 of them in tensor `b`");
        gap_between_tensors: |r| {
            r.tensors[1].offset = 64;
            r.data.resize(96, 0);
        },
        Departs("tensor `b`: it is at 64 of the data section, not at 32");
        tensors_out_of_order: |r| r.tensors.swap(0, 1), Departs("tensor `b`: it is at 32");
        last_padding_missing: |r| r.data.truncate(52), Departs("with the padding of the last tensor");
        bytes_behind: |r| r.data.resize(1000, 1), Loads;
        no_data_section: |r| r.data.clear(), Refused("data inside the file");
        nan_weight: |r| r.data[..4].copy_from_slice(&f32::NAN.to_le_bytes()), Loads;
    }
}

fn array_of(ty: u32, count: u64) -> Vec<u8> {
    [&ty.to_le_bytes()[..], &count.to_le_bytes()].concat()
}

/// `[[[...]]]`, this many brackets.
fn nested(depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 1..depth {
        out.extend(array_of(9, 1));
    }
    out.extend(array_of(4, 0));
    out
}

fn check(change: fn(&mut Raw), verdict: Verdict) {
    let mut raw = Raw::valid();
    change(&mut raw);
    let result = Gguf::parse(raw.bytes(), &Limits::default()).map(|gguf| (gguf.strict_check(), gguf));
    let right = match (&result, &verdict) {
        (Ok((Ok(()), _)), Loads) => true,
        (Ok((Err(e), _)), Departs(words)) => e.to_string().contains(words),
        (Err(e @ Error::Malformed { .. }), Refused(words)) => e.to_string().contains(words),
        _ => false,
    };
    let found = match result {
        Ok((strict, _)) => format!("loads, strict check {strict:?}"),
        Err(e) => e.to_string(),
    };
    assert!(right, "expected {verdict:?}, {found}");
}

#[test]
fn the_valid_twin_reads_as_written() {
    let gguf = Gguf::parse(Raw::valid().bytes(), &Limits::default()).unwrap();
    gguf.strict_check().unwrap();
    let metadata = gguf.metadata();
    assert_eq!(metadata.need_str("general.architecture").unwrap(), "llama");
    assert_eq!(metadata.need_u64("llama.block_count").unwrap(), 2);
    let tokens: Vec<&[u8]> = metadata.need_array("tokenizer.ggml.tokens").unwrap().strs().unwrap().collect();
    assert_eq!(tokens, [b"a", b"\xff"]);
    let w = gguf.tensor("w").unwrap();
    assert_eq!((w.shape(), w.element_count(), w.row_len(), w.byte_len()), (&[2, 4][..], 8, 4, 32));
    assert_eq!(gguf.data(w), (0..32).collect::<Vec<u8>>());
    assert_eq!(gguf.data(gguf.tensor("b").unwrap()), (32..52).collect::<Vec<u8>>());
    assert!(gguf.tensor("x").is_none());
}

#[test]
fn every_truncation_is_refused() {
    let bytes = Raw::valid().bytes();
    let padding = 12;
    for len in 0..bytes.len() {
        let result = Gguf::parse(&bytes[..len], &Limits::default());
        assert_eq!(result.is_ok(), len + padding >= bytes.len(), "{len} of {} bytes", bytes.len());
    }
}

#[test]
fn values_of_the_wrong_type_are_errors_that_name_the_key() {
    let mut raw = Raw::valid();
    raw.key("general.name", 4, &7u32.to_le_bytes());
    raw.key("n", 5, &(-1i32).to_le_bytes());
    raw.key("text", 8, &string(b"\xff\xfe"));
    raw.key("big", 9, &array(10, &[&u64::MAX.to_le_bytes()]));
    raw.key("flag", 7, &[2]);
    let gguf = Gguf::parse(raw.bytes(), &Limits::default()).unwrap();
    let m = gguf.metadata();
    let errors = [
        (m.need_str("general.name").map(drop), "key `general.name`: expected string, found u32 7"),
        (m.need_u64("n").map(drop), "key `n`: expected an integer that is not negative, found i32 -1"),
        (m.need_str("text").map(drop), "key `text`: expected string, found string that is not UTF-8"),
        (m.need_f32("llama.block_count").map(drop), "key `llama.block_count`: expected f32 or f64, found u32 2"),
        (m.need_bool("n").map(drop), "key `n`: expected bool, found i32 -1"),
        (m.need_array("n").map(drop), "key `n`: expected array, found i32 -1"),
        (m.need_u64("missing").map(drop), "key `missing` is missing"),
        (m.need_array("big").unwrap().ints().map(drop), "key `big`: expected array of integers up to 2^63 - 1"),
        (m.need_array("big").unwrap().strs().map(drop), "key `big`: expected array of strings, found array of u64"),
    ];
    for (result, words) in errors {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(m.get_u64("missing").unwrap(), None);
    assert!(m.need_bool("flag").unwrap());
    assert!(matches!(m.get("text").unwrap().view(), ValueView::Str(b"\xff\xfe")));
}

#[test]
fn an_unknown_type_reaches_to_the_next_tensor_or_the_end() {
    let mut raw = Raw::valid();
    raw.tensors.iter_mut().for_each(|t| t.ty = 99);
    raw.data.extend([7; 5]);
    let gguf = Gguf::parse(raw.bytes(), &Limits::default()).unwrap();
    let lens: Vec<u64> = gguf.tensors().iter().map(|t| t.byte_len()).collect();
    assert_eq!(lens, [32, 37]);
    assert_eq!(gguf.tensors()[0].ggml_type().to_string(), "type-99");
}

#[test]
fn limits_can_be_raised_and_lowered() {
    let mut raw = Raw::valid();
    raw.tensors[0].name = vec![b'n'; 127];
    let mut limits = Limits::default();
    assert!(Gguf::parse(raw.bytes(), &limits).is_err());
    limits.name_bytes = 127;
    let gguf = Gguf::parse(raw.bytes(), &limits).unwrap();
    assert!(gguf.strict_check().unwrap_err().to_string().contains("127 bytes, more than 63"));
    limits.string_bytes = 4;
    assert!(Gguf::parse(raw.bytes(), &limits).unwrap_err().to_string().contains("at most 4 bytes"));
}
