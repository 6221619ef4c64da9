//! Importance matrices: the file that ggml writes, the legacy form byte by byte, and files with a single defect.

use gguf_format::imatrix::{Entry, Imatrix};
use gguf_format::{Error, GgmlType, Metadata, TensorSpec, WritePlan};

/// Written by ggml's own `gguf_write_to_file` (libggml-base of llama-cpp-python 0.3.36, llama.cpp 0c1e57098) with the calls of
/// `IMatrixCollector::save_imatrix`: same keys, same order, `ggml_new_tensor_2d(F32, n / n_mat, n_mat)` and `(F32, 1, n_mat)`.
const BY_GGML: &[u8] = include_bytes!("data/imatrix.gguf");

fn entry(in_sum2: &[f32], counts: &[u64]) -> Entry {
    Entry { in_sum2: in_sum2.into(), counts: counts.into() }
}

fn sample() -> Imatrix {
    Imatrix {
        datasets: vec!["prose.txt".into(), "café.txt".into()],
        chunk_count: 3,
        chunk_size: 512,
        entries: [
            ("blk.2.attn_q.weight".to_owned(), entry(&[1e-30, 3e38], &[1])),
            ("blk.10.attn_q.weight".to_owned(), entry(&[0.25], &[1 << 24])),
            ("blk.0.attn_q.weight".to_owned(), entry(&[1.5, 0.0, 3072.0, 0.1], &[1536])),
            (
                "blk.0.ffn_down_exps.weight".to_owned(),
                entry(&[1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 7.0, 8.0, 9.5], &[10, 0, 3]),
            ),
        ]
        .into(),
    }
}

#[test]
fn the_file_of_ggml_is_read_and_written_to_the_byte() {
    assert_eq!(Imatrix::parse(BY_GGML).unwrap(), sample());
    assert!(sample().to_bytes().unwrap() == BY_GGML);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imatrix.gguf");
    assert_eq!(sample().write(&path).unwrap(), BY_GGML.len() as u64);
    assert!(std::fs::read(&path).unwrap() == BY_GGML);
    assert_eq!(Imatrix::open(&path).unwrap(), sample());
}

#[test]
fn importance_is_the_mean_and_one_where_nothing_was_seen() {
    let imatrix = sample();
    let of = |name| imatrix.importance(name);
    assert_eq!(of("blk.0.attn_q.weight"), Some(vec![1.5 / 1536.0, 0.0, 2.0, 0.1 / 1536.0]));
    assert_eq!(
        of("blk.0.ffn_down_exps.weight"),
        Some(vec![0.1, 0.2, 0.3, 1.0, 1.0, 1.0, 7.0 / 3.0, 8.0 / 3.0, 9.5 / 3.0])
    );
    assert_eq!(of("blk.9.attn_q.weight"), None);
    assert_eq!(entry(&[1.0, 2.0, 3.0], &[1, 1]).importance(), None);
    assert_eq!(entry(&[1.0], &[]).importance(), None);
}

/// The legacy form: name, chunks, values; then what stands after the entries.
fn legacy(entries: &[(&str, i32, &[f32])], tail: &[u8]) -> Vec<u8> {
    let mut out = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, chunks, values) in entries {
        out.extend((name.len() as i32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(chunks.to_le_bytes());
        out.extend((values.len() as i32).to_le_bytes());
        out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    out.extend(tail);
    out
}

fn tail(chunks: i32, dataset: &str) -> Vec<u8> {
    [&chunks.to_le_bytes()[..], &(dataset.len() as i32).to_le_bytes(), dataset.as_bytes()].concat()
}

#[test]
fn legacy_files_of_every_age_are_read() {
    let entries: &[(&str, i32, &[f32])] = &[("b", 4, &[8.0, 2.0]), ("a", 0, &[8.0])];
    let cases: [(&str, Vec<u8>, u32, &[&str]); 4] = [
        ("no tail", vec![], 0, &[]),
        ("chunks only", 7i32.to_le_bytes().to_vec(), 7, &[]),
        ("no dataset", tail(7, ""), 7, &[]),
        ("whole", tail(7, "wiki.txt"), 7, &["wiki.txt"]),
    ];
    for (name, tail, chunk_count, datasets) in cases {
        let imatrix = Imatrix::parse(&legacy(entries, &tail)).unwrap();
        assert_eq!((imatrix.chunk_count, imatrix.chunk_size), (chunk_count, 0), "{name}");
        assert_eq!(imatrix.datasets, datasets, "{name}");
        assert_eq!(imatrix.importance("b"), Some(vec![2.0, 0.5]), "{name}");
        // Without a count llama-quantize takes the values as they are.
        assert_eq!(imatrix.importance("a"), Some(vec![8.0]), "{name}");
    }
}

#[test]
fn legacy_form_as_llama_cpp_writes_it() {
    let written = sample().to_legacy_bytes().unwrap();
    // 1536 tokens are 3 chunks of 512; the other counts are rounded up to a chunk; the expert that saw nothing becomes ones.
    let third = |sum: f32| sum / 3.0;
    let expected = legacy(
        &[
            ("blk.0.attn_q.weight", 3, &[1.5 / 1536.0 * 3.0, 0.0, 6.0, 0.1 / 1536.0 * 3.0]),
            ("blk.0.ffn_down_exps.weight", 1, &[0.1, 0.2, 0.3, 1.0, 1.0, 1.0, third(7.0), third(8.0), third(9.5)]),
            ("blk.10.attn_q.weight", 32768, &[0.25 / 16777216.0 * 32768.0]),
            ("blk.2.attn_q.weight", 1, &[1e-30, 3e38]),
        ],
        &tail(3, "café.txt"),
    );
    assert!(written == expected);
    let read = Imatrix::parse(&written).unwrap();
    assert_eq!(read.chunk_count, 3);
    assert_eq!(read.importance("blk.0.ffn_down_exps.weight"), sample().importance("blk.0.ffn_down_exps.weight"));
}

fn gguf(tensors: &[(&str, &[u64], &[f32])], keys: &[(&str, gguf_format::Value)]) -> Vec<u8> {
    let mut metadata = Metadata::new();
    for (key, value) in keys {
        metadata.set(key, value.clone());
    }
    let specs: Vec<_> = tensors
        .iter()
        .map(|(name, shape, _)| TensorSpec { name: (*name).into(), shape: shape.to_vec(), ty: GgmlType::F32 })
        .collect();
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, _, v)| v.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    WritePlan::new(&metadata, &specs).unwrap().to_bytes(&data).unwrap()
}

#[test]
fn gguf_files_with_one_defect_are_refused() {
    let sums: (&str, &[u64], &[f32]) = ("a.in_sum2", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let counts: (&str, &[u64], &[f32]) = ("a.counts", &[2, 1], &[1.0, 2.0]);
    let twin = Imatrix::parse(&gguf(&[sums, counts, ("other", &[1], &[0.0])], &[])).unwrap();
    assert_eq!(twin.importance("a"), Some(vec![1.0, 2.0, 1.5, 2.0]));
    let cases: [(&str, Vec<u8>, &str); 12] = [
        ("no_tensors", gguf(&[], &[]), "none among 0"),
        ("a_model", gguf(&[sums, counts], &[("general.type", "model".into())]), "`general.type`: expected \"imatrix\""),
        ("no_counts", gguf(&[sums], &[]), "`a.counts` is missing"),
        ("no_sums", gguf(&[counts], &[]), "`a.in_sum2` is missing"),
        ("zero_counts", gguf(&[sums, ("a.counts", &[0, 1], &[])], &[]), "at least one count"),
        ("zero_sums", gguf(&[("a.in_sum2", &[2, 0], &[]), counts], &[]), "0 sums for 2 counts"),
        ("sums_not_whole_rows", gguf(&[("a.in_sum2", &[3], &[1.0; 3]), counts], &[]), "3 sums for 2 counts"),
        ("negative_count", gguf(&[sums, ("a.counts", &[1], &[-1.0])], &[]), "a number of tokens"),
        ("nan_count", gguf(&[sums, ("a.counts", &[1], &[f32::NAN])], &[]), "a number of tokens"),
        ("negative_sum", gguf(&[("a.in_sum2", &[2], &[0.0, -1.0]), counts], &[]), "a sum of squares, found -1"),
        (
            "chunk_count_is_a_string",
            gguf(&[sums, counts], &[("imatrix.chunk_count", "3".into())]),
            "`imatrix.chunk_count`",
        ),
        (
            "chunk_size_too_large",
            gguf(&[sums, counts], &[("imatrix.chunk_size", (1u64 << 32).into())]),
            "`imatrix.chunk_size`",
        ),
    ];
    check_all(&cases);
}

#[test]
fn legacy_files_with_one_defect_are_refused() {
    let good: &[(&str, i32, &[f32])] = &[("a", 1, &[1.0])];
    assert!(Imatrix::parse(&legacy(good, &tail(1, "t"))).is_ok());
    let patched = |at: usize, n: i32| {
        let mut bytes = legacy(good, &tail(1, "t"));
        bytes[at..at + 4].copy_from_slice(&n.to_le_bytes());
        bytes
    };
    let cases: [(&str, Vec<u8>, &str); 15] = [
        ("empty", vec![], "4 bytes"),
        ("text", b"Once upon a time there was a model".to_vec(), "GGUF, or a number of entries"),
        ("no_entries", patched(0, 0), "number of entries"),
        ("negative_entries", patched(0, -1), "number of entries"),
        ("2^31_entries", patched(0, i32::MAX), "number of entries"),
        ("empty_name", patched(4, 0), "the length of a name"),
        ("negative_name", patched(4, -5), "the length of a name"),
        ("name_past_end", patched(4, i32::MAX), "the length of a name"),
        ("no_values", patched(13, 0), "entry `a`"),
        ("negative_values", patched(13, -4), "entry `a`"),
        ("8_gib_of_values", patched(13, i32::MAX), "entry `a`"),
        ("nan_value", legacy(&[("a", 1, &[f32::NAN])], &[]), "a sum of squares"),
        ("duplicate_name", legacy(&[("a", 1, &[1.0]), ("a", 1, &[1.0])], &[]), "a second time"),
        ("dataset_past_end", legacy(good, &[tail(1, ""), vec![0]].concat()), "the end of the file"),
        ("trailing_bytes", legacy(good, &[tail(1, "t"), vec![1]].concat()), "the end of the file"),
    ];
    check_all(&cases);
    // Every shorter file is refused too, but for those that end where an older one does.
    let whole = legacy(good, &tail(1, "t"));
    for len in 0..whole.len() {
        let ends = [whole.len() - 9, whole.len() - 5];
        assert_eq!(Imatrix::parse(&whole[..len]).is_ok(), ends.contains(&len), "{len}");
    }
}

fn check_all(cases: &[(&str, Vec<u8>, &str)]) {
    let mut failed = Vec::new();
    for (name, bytes, expected) in cases {
        match Imatrix::parse(bytes) {
            Err(e) if e.to_string().contains(expected) => {}
            other => failed.push(format!("{name}: {other:?}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn what_no_file_can_hold_is_not_written() {
    let cases: [(&str, Imatrix); 6] = [
        ("no_entries", Imatrix::default()),
        ("ragged", one("a", entry(&[1.0, 2.0, 3.0], &[1, 1]))),
        ("no_sums", one("a", entry(&[], &[1]))),
        ("nan", one("a", entry(&[f32::NAN], &[1]))),
        ("empty_name", one("", entry(&[1.0], &[1]))),
        ("name_too_long", one(&"n".repeat(56), entry(&[1.0], &[1]))),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    for (name, imatrix) in cases {
        assert!(matches!(imatrix.to_bytes(), Err(Error::Refused { .. })), "{name}");
        assert!(imatrix.write(&path).is_err(), "{name}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
    }
    let refused = [one("a", entry(&[1.0], &[u64::MAX])), one("a", entry(&[1.0], &[0]))];
    assert!(refused.iter().all(|i| matches!(i.to_legacy_bytes(), Err(Error::Refused { .. }))));
}

fn one(name: &str, entry: Entry) -> Imatrix {
    Imatrix { entries: [(name.to_owned(), entry)].into(), ..Imatrix::default() }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = Imatrix::parse(&bytes);
    }

    #[test]
    fn changed_files_are_read_or_refused(at in 0usize..1024, to in proptest::num::u8::ANY, legacy in proptest::bool::ANY) {
        let mut bytes = if legacy { sample().to_legacy_bytes().unwrap() } else { BY_GGML.to_vec() };
        let len = bytes.len();
        bytes[at % len] = to;
        if let Ok(imatrix) = Imatrix::parse(&bytes) {
            assert!(imatrix.entries.keys().all(|name| imatrix.importance(name).is_some()));
        }
    }
}
