//! The pipeline: slabs, orders, experts, importance, and what must never reach the target.

use gguf_format::mix::{FileType, MixOptions};
use gguf_format::{GgmlType, Gguf, GgufWriter, Metadata, TensorSpec, blocks};
use quant_runtime::convert::{ModelSource, Place, RowOrder, SourceTensor};
use quant_runtime::quantize::{Importance, QuantizeOptions, QuantizePlan, QuantizeReport};
use quant_runtime::{Checkpoint, Error};
use std::ops::ControlFlow;
use std::path::Path;

/// Numbers that look like weights, the same every time.
fn values(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state as f32 / u32::MAX as f32 - 0.5) * 0.1
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn llama(blocks: u32) -> Metadata {
    let mut m = Metadata::new();
    m.set("general.architecture", "llama");
    m.set("llama.block_count", blocks);
    m.set("llama.attention.head_count", 4u32);
    m
}

fn tensor(name: &str, shape: &[u64], values: &[f32]) -> SourceTensor {
    SourceTensor {
        name: name.into(),
        shape: shape.to_vec(),
        ty: GgmlType::F32,
        stored: GgmlType::F32,
        place: Place::Memory(bytes(values)),
        order: RowOrder::AsStored,
    }
}

fn source(metadata: Metadata, tensors: Vec<SourceTensor>) -> ModelSource {
    ModelSource { path: "memory".into(), metadata, tensors, files: Vec::new(), packed: None }
}

fn go_on(_: quant_runtime::quantize::Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn quantize(source: &ModelSource, options: QuantizeOptions, out: &Path) -> Result<QuantizeReport, Error> {
    QuantizePlan::new(source, options)?.run(out, &go_on)
}

fn options(file_type: FileType) -> QuantizeOptions {
    QuantizeOptions::new(MixOptions::new(file_type))
}

fn direct(ty: GgmlType, values: &[f32], row_len: usize, importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0; ty.bytes_for(values.len() as u64).unwrap() as usize];
    blocks::quantize(ty, values, row_len, importance, &mut out).unwrap();
    out
}

/// Names in a folder: nothing half-written may stay.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn many_slabs_in_both_orders() {
    let dir = tempfile::tempdir().unwrap();
    // 20 MB: three slabs, the last one short.
    let (rows, cols, head_dim) = (5120usize, 1024usize, 160u64);
    let all = values(1, rows * cols);
    let mut permuted = tensor("blk.0.attn_q.weight", &[rows as u64, cols as u64], &all);
    permuted.order = RowOrder::Halves { head_dim };
    let source = source(
        llama(1),
        vec![
            permuted,
            tensor("blk.0.attn_v.weight", &[rows as u64, cols as u64], &all),
            tensor("blk.0.ffn_norm.weight", &[cols as u64], &all[..cols]),
        ],
    );
    let out = dir.path().join("out.gguf");
    let mut wanted = options(FileType::Q8_0);
    wanted.measure_errors = true;
    let report = quantize(&source, wanted, &out).unwrap();
    assert_eq!(report.bytes, std::fs::metadata(&out).unwrap().len());

    let file = Gguf::open(&out).unwrap();
    let data = |name: &str| file.data(file.tensor(name).unwrap());
    let mut in_pairs = Vec::with_capacity(all.len());
    for head in all.chunks_exact(head_dim as usize * cols) {
        let (first, second) = head.split_at(head.len() / 2);
        for (a, b) in first.chunks_exact(cols).zip(second.chunks_exact(cols)) {
            in_pairs.extend_from_slice(a);
            in_pairs.extend_from_slice(b);
        }
    }
    assert!(data("blk.0.attn_q.weight") == direct(GgmlType::Q8_0, &in_pairs, cols, None));
    assert!(data("blk.0.attn_v.weight") == direct(GgmlType::Q8_0, &all, cols, None));
    assert!(data("blk.0.ffn_norm.weight") == bytes(&all[..cols]));

    let mut back = vec![0.0; all.len()];
    blocks::dequantize(GgmlType::Q8_0, data("blk.0.attn_v.weight"), &mut back).unwrap();
    let square = |v: f32| f64::from(v) * f64::from(v);
    let error: f64 = all.iter().zip(&back).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let nmse = error / all.iter().map(|&v| square(v)).sum::<f64>();
    let reported = report.tensors[1].errors.unwrap().nmse;
    assert!((reported / nmse - 1.0).abs() < 1e-9, "{reported} {nmse}");
    assert_eq!(report.tensors[2].errors.map(|e| e.nmse), Some(0.0));
}

#[test]
fn experts_have_their_own_importance() {
    let dir = tempfile::tempdir().unwrap();
    let (experts, rows, cols) = (3usize, 7usize, 256usize);
    let all = values(2, experts * rows * cols);
    let weights: Vec<f32> = values(3, experts * cols).iter().map(|v| v * v).collect();
    let mut metadata = llama(1);
    metadata.set("llama.expert_count", experts as u32);
    let name = "blk.0.ffn_up_exps.weight";
    let source = source(metadata, vec![tensor(name, &[experts as u64, rows as u64, cols as u64], &all)]);
    let mut wanted = options(FileType::Q4_K_S);
    wanted.importance =
        Some(Importance { values: [(name.to_owned(), weights.clone())].into(), ..Importance::default() });
    wanted.measure_errors = true;
    let out = dir.path().join("out.gguf");
    let report = quantize(&source, wanted, &out).unwrap();
    assert!(report.tensors[0].importance && report.tensors[0].errors.unwrap().weighted_nmse.is_some());

    let file = Gguf::open(&out).unwrap();
    let expected: Vec<u8> = (0..experts)
        .flat_map(|e| {
            let matrix = &all[e * rows * cols..(e + 1) * rows * cols];
            direct(GgmlType::Q4_K, matrix, cols, Some(&weights[e * cols..(e + 1) * cols]))
        })
        .collect();
    assert!(file.data(file.tensor(name).unwrap()) == expected);
}

#[test]
fn importance_keys_and_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let all = values(4, 4 * 256);
    let (with, without) = ("blk.0.ffn_up.weight", "blk.0.ffn_gate.weight");
    let source = source(llama(1), vec![tensor(without, &[4, 256], &all), tensor(with, &[4, 256], &all)]);
    let importance = Importance {
        values: [(with.to_owned(), vec![1.0; 256])].into(),
        file: Some("ü".repeat(100)),
        dataset: Some("text.txt".into()),
        chunks: 7,
    };
    let mut wanted = options(FileType::Q4_K_M);
    wanted.importance = Some(importance.clone());
    let out = dir.path().join("out.gguf");
    let report = quantize(&source, wanted, &out).unwrap();
    assert_eq!(report.without_importance, [without]);
    let file = Gguf::open(&out).unwrap();
    let keys: Vec<_> = file.metadata().iter().map(|(k, _)| k).skip(3).collect();
    assert_eq!(
        keys,
        [
            "general.quantization_version",
            "general.file_type",
            "quantize.imatrix.file",
            "quantize.imatrix.dataset",
            "quantize.imatrix.entries_count",
            "quantize.imatrix.chunks_count",
        ]
    );
    // 127 bytes at most, no half character.
    assert_eq!(file.metadata().need_str("quantize.imatrix.file").unwrap(), "ü".repeat(63));
    assert_eq!(file.metadata().need_u64("general.file_type").unwrap(), 15);

    let mut wrong = options(FileType::Q4_K_M);
    wrong.importance = Some(Importance { values: [(with.to_owned(), vec![1.0; 255])].into(), ..importance });
    let e = QuantizePlan::new(&source, wrong).unwrap_err().to_string();
    assert!(e.contains(with) && e.contains("255"), "{e}");
    // Two bits without importance are refused before anything is written.
    let plan = QuantizePlan::new(&source, options(FileType::Q2_K_S)).unwrap();
    assert_eq!(plan.dry_run().tensors.len(), 2);
    let e = plan.run(dir.path().join("refused.gguf"), &go_on).unwrap_err().to_string();
    assert!(e.contains("importance matrix"), "{e}");
    assert_eq!(names(dir.path()), ["out.gguf"]);
}

#[test]
fn a_bad_weight_leaves_the_target_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    std::fs::write(&out, b"old").unwrap();
    let name = "blk.0.ffn_up.weight";
    for (value, file_type, expected) in [
        (f32::NAN, FileType::Q4_K_M, "NaN at row 2, column 5"),
        (f32::INFINITY, FileType::Q8_0, "inf at row 2, column 5"),
        (f32::NAN, FileType::F32, "value 517"),
        (1e30, FileType::F16, "row 2, column 5"),
        (1e30, FileType::Q8_0, "row 2"),
    ] {
        let mut all = values(5, 4 * 256);
        all[2 * 256 + 5] = value;
        let source = source(llama(1), vec![tensor(name, &[4, 256], &all)]);
        let e = quantize(&source, options(file_type), &out).unwrap_err().to_string();
        assert!(e.contains(name) && e.contains(expected), "{value} {file_type}: {e}");
        assert_eq!(names(dir.path()), ["out.gguf"], "{value} {file_type}");
        assert_eq!(std::fs::read(&out).unwrap(), b"old");
    }
}

#[test]
fn stopping_leaves_the_target_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    std::fs::write(&out, b"old").unwrap();
    let all = values(6, 4 * 256);
    let tensors = (0..8).map(|l| tensor(&format!("blk.{l}.ffn_up.weight"), &[4, 256], &all)).collect();
    let source = source(llama(8), tensors);
    let plan = QuantizePlan::new(&source, options(FileType::Q4_0)).unwrap();
    let stop = |p: quant_runtime::quantize::Progress<'_>| match p.index {
        3 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert!(plan.run(&out, &stop).is_err());
    assert_eq!((names(dir.path()), std::fs::read(&out).unwrap()), (vec!["out.gguf".to_owned()], b"old".to_vec()));
}

#[test]
fn a_quantized_source_is_taken_only_when_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.gguf");
    let spec = TensorSpec { name: "blk.0.ffn_up.weight".into(), shape: vec![4, 256], ty: GgmlType::Q8_0 };
    let mut writer = GgufWriter::create(&input, &llama(1), std::slice::from_ref(&spec)).unwrap();
    writer.write(&direct(GgmlType::Q8_0, &values(7, 4 * 256), 256, None)).unwrap();
    writer.finish().unwrap();
    let source = ModelSource::open(&Checkpoint::open(&input).unwrap()).unwrap();
    let out = dir.path().join("out.gguf");

    let e = quantize(&source, options(FileType::Q4_K_M), &out).unwrap_err();
    assert!(matches!(&e, Error::Usage(m) if m.contains("Q8_0") && m.contains("--allow-requantize")), "{e}");
    assert_eq!(names(dir.path()), ["in.gguf"]);
    let mut allowed = options(FileType::Q4_K_M);
    allowed.allow_requantize = true;
    quantize(&source, allowed, &out).unwrap();
    assert_eq!(Gguf::open(&out).unwrap().tensors()[0].ggml_type(), GgmlType::Q4_K);
    // To the type it has: a copy, always allowed.
    quantize(&source, options(FileType::Q8_0), &out).unwrap();
    assert!(Gguf::open(&out).unwrap().tensors()[0].ggml_type() == GgmlType::Q8_0);

    let e = quantize(&source, options(FileType::Q8_0), &input).unwrap_err();
    assert!(matches!(&e, Error::Usage(m) if m.contains("overwritten")), "{e}");
}
