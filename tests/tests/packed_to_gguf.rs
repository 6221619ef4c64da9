//! Packed directories as GGUF files: the same codes, and the model of the directory.
//!
//! Golden: the directories of `shared/golden/checkpoints` and `shared/golden/compressed_tensors`. Codes are read from the blocks here, nibble by nibble, and compared
//! with those of the directory in llama.cpp's row order; the file's logits are compared with the directory's.

use candle_core::Device;
use gguf_format::{GgmlType, Gguf};
use quant_runtime::checkpoint::{HfDir, gguf_name};
use quant_runtime::convert::{AsBlocks, ModelSource, Place};
use quant_runtime::eval::{EvalPlan, ModelLogits, evaluate};
use quant_runtime::quantize::QuantizePlan;
use quant_runtime::{Checkpoint, LogitRows, Model, Tokenizer};
use quant_tests::{divergences, mean, shared};
use std::ops::ControlFlow;
use std::path::Path;

/// Folder of `shared/golden`, directory, type of its modules, and the mean KL to the directory's own logits.
const DIRECTORIES: [(&str, &str, GgmlType, f64); 12] = [
    ("checkpoints", "autoawq_b4_g128", GgmlType::Q4_1, 1e-6),
    ("checkpoints", "awq_b4_g128_asym", GgmlType::Q4_1, 1e-6),
    ("checkpoints", "awq_b4_g64_sym", GgmlType::Q4_0, 1e-10),
    ("checkpoints", "gptq_b2_g32_asym", GgmlType::Q4_0, 1e-10),
    ("checkpoints", "gptq_b3_g64_asym", GgmlType::Q4_0, 1e-10),
    ("checkpoints", "gptq_b4_g128_sym", GgmlType::Q4_0, 1e-10),
    ("checkpoints", "gptq_b8_g32_sym", GgmlType::Q8_0, 1e-10),
    ("checkpoints", "gptqmodel_b3_g64_asym", GgmlType::Q4_0, 1e-10),
    ("checkpoints", "gptqmodel_b4_g128_sym", GgmlType::Q4_0, 1e-10),
    ("checkpoints", "gptqmodel_b4_g32_sym_act", GgmlType::F16, 1e-6),
    ("compressed_tensors", "ct_w4a16_sym", GgmlType::Q4_0, 1e-10),
    ("compressed_tensors", "ct_w4a16_asym", GgmlType::Q4_1, 1e-6),
];

/// Row of the directory that is row `row` of a q or k in GGUF's `llama`: each head's halves interleaved (`permute` in llama.cpp's convert_hf_to_gguf.py).
fn stored_row(row: usize, head: usize) -> usize {
    let (h, r) = (row / head, row % head);
    h * head + if r % 2 == 0 { r / 2 } else { head / 2 + r / 2 }
}

/// The codes of a row's blocks, moved so that zero points count from 0 again where the type has no minimum.
fn codes(ty: GgmlType, row: &[u8]) -> Vec<i32> {
    let nibbles = |qs: &[u8]| -> Vec<i32> {
        let high = qs.iter().map(|b| i32::from(b >> 4));
        qs.iter().map(|b| i32::from(b & 15)).chain(high).collect()
    };
    match ty {
        GgmlType::Q4_0 => row.chunks_exact(18).flat_map(|b| nibbles(&b[2..])).map(|q| q - 8).collect(),
        GgmlType::Q4_1 => row.chunks_exact(20).flat_map(|b| nibbles(&b[4..])).collect(),
        _ => row.chunks_exact(34).flat_map(|b| b[2..].iter().map(|q| i32::from(*q as i8))).collect(),
    }
}

fn logits(path: &Path) -> Vec<f32> {
    let model = Model::load(&Checkpoint::open(path).unwrap(), &Device::Cpu).unwrap();
    let tokens: Vec<u32> = (0..128).map(|i| (i * i * 3 + 7 * i + 1) % 2000).collect();
    let all = model.forward(&tokens, &mut model.new_cache(), LogitRows::All).unwrap();
    all.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_same_codes() {
    let dir = tempfile::tempdir().unwrap();
    for (folder, name, expected, most) in DIRECTORIES {
        let Some(path) = shared(&format!("golden/{folder}/{name}")) else { return };
        let out = dir.path().join(format!("{name}.gguf"));
        let source = ModelSource::open(&Checkpoint::open(&path).unwrap()).unwrap();
        let plan = QuantizePlan::unchanged(&source, None).unwrap();
        let report = plan.run(&out, &|_| ControlFlow::Continue(())).unwrap();
        let (ours, theirs) = (logits(&out), logits(&path));
        let kl = mean(&divergences(&theirs, &ours, 2048)).0;
        let nmse = report.tensors.iter().filter_map(|t| t.errors).map(|e| e.nmse).fold(0.0, f64::max);
        let types: std::collections::BTreeSet<String> = report
            .tensors
            .iter()
            .filter(|t| t.name.contains("blk") && t.shape.len() == 2)
            .map(|t| t.ty.to_string())
            .collect();
        println!(
            "{name}: {types:?}, {} bytes, NMSE at most {nmse:.1e}, mean KL to the directory {kl:.1e}",
            report.bytes
        );
        assert!(kl < most, "{name}: {kl}");

        let hf = HfDir::open(&path).unwrap();
        let packed = hf.packed().unwrap().unwrap();
        let gguf = Gguf::open(&out).unwrap();
        let mut seen = 0;
        for module in packed.names() {
            let tensor = gguf_name(&format!("{module}.weight")).unwrap();
            let info = gguf.tensor(&tensor).unwrap();
            let matrix = packed.matrix(module).unwrap().unwrap();
            let matrix = matrix.affine().unwrap();
            let (rows, columns) = (matrix.out_features(), matrix.in_features());
            assert_eq!(info.shape(), [rows as u64, columns as u64]);
            let ty = info.ggml_type();
            // A type with a minimum, unless no code needs one.
            assert!(ty == expected || (expected, ty) == (GgmlType::Q4_1, GgmlType::Q4_0), "{name} {module}: {ty}");
            if ty == GgmlType::F16 {
                continue;
            }
            seen += 1;
            let data = gguf.data(info);
            let permuted = module.ends_with("q_proj") || module.ends_with("k_proj");
            for (row, bytes) in data.chunks_exact(data.len() / rows).enumerate() {
                let stored = if permuted { stored_row(row, 64) } else { row };
                let (groups, group) = (matrix.groups(), matrix.group_size());
                let expected: Vec<i32> = (0..columns)
                    .map(|column| {
                        let zero = matrix.zeros()[stored * groups + column / group];
                        let code = i32::from(matrix.codes()[stored * columns + column]);
                        if ty == GgmlType::Q4_1 { code } else { code - i32::from(zero) }
                    })
                    .collect();
                assert_eq!(codes(ty, bytes), expected, "{name} {module} row {row}");
            }
        }
        assert_eq!(seen, if expected == GgmlType::F16 { 0 } else { 42 }, "{name}");
        // Whatever is not a module is as it was.
        let head = gguf.tensor("output.weight").unwrap();
        assert_eq!(gguf.data(head), hf.entry("lm_head.weight").unwrap().data);
        let by_value = |p: &Place| matches!(p, Place::Packed { as_blocks: AsBlocks::Values(why), .. } if why.contains("activations"));
        let counted = source.tensors.iter().filter(|t| by_value(&t.place)).count();
        assert_eq!(counted, if expected == GgmlType::F16 { 42 } else { 0 });
    }
}

/// Perplexity of the file and of its directory, on wikitext-2.
#[test]
fn the_same_perplexity() {
    let Some(text) = shared("data/wikitext2-test.txt") else { return };
    let dir = tempfile::tempdir().unwrap();
    for (name, most) in [("autoawq_b4_g128", 5e-5), ("gptq_b8_g32_sym", 1e-7)] {
        let Some(path) = shared(&format!("golden/checkpoints/{name}")) else { return };
        let checkpoint = Checkpoint::open(&path).unwrap();
        let out = dir.path().join(name);
        let source = ModelSource::open(&checkpoint).unwrap();
        QuantizePlan::unchanged(&source, None).unwrap().run(&out, &|_| ControlFlow::Continue(())).unwrap();
        let text = std::fs::read_to_string(&text).unwrap();
        let ppl = [&path, &out].map(|path| {
            // The file has its own tokenizer.
            let checkpoint = Checkpoint::open(path).unwrap();
            let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
            let plan = EvalPlan::from_text(&tokenizer, &text, 256, Some(16)).unwrap();
            let model = Model::load(&checkpoint, &Device::Cpu).unwrap();
            evaluate(&plan, &mut ModelLogits::new(&model), None, None, &mut |_| {}).unwrap().ppl
        });
        println!("{name}: directory {}, file {}", ppl[0], ppl[1]);
        assert!((ppl[1] / ppl[0] - 1.0).abs() < most, "{name}: {ppl:?}");
    }
}

/// Types that can be asked for, and what is refused.
#[test]
fn dense_tensors_in_another_type() {
    let Some(path) = shared("golden/checkpoints/awq_b4_g64_sym") else { return };
    let source = ModelSource::open(&Checkpoint::open(&path).unwrap()).unwrap();
    assert!(source.is_packed());
    let plan = QuantizePlan::unchanged(&source, Some(gguf_format::mix::FileType::F16)).unwrap();
    let report = plan.dry_run();
    let ty = |name: &str| report.tensors.iter().find(|t| t.name == name).unwrap().ty;
    assert_eq!(ty("blk.0.attn_q.weight"), GgmlType::Q4_0);
    assert_eq!(ty("token_embd.weight"), GgmlType::F16);
    assert_eq!(ty("blk.0.attn_norm.weight"), GgmlType::F32);
    // Quantizing again what is quantized adds errors, and has to be asked for.
    let options = quant_runtime::quantize::QuantizeOptions::new(gguf_format::mix::MixOptions::new(
        gguf_format::mix::FileType::Q4_K_M,
    ));
    let again = QuantizePlan::new(&source, options).unwrap();
    assert!(again.ready().unwrap_err().to_string().contains("Q4_0 already"));
}
