//! What candle's own packed products can reach: every weight matrix of a GGUF file once, with the activations of one token and of a prompt, one after the
//! other. Attention, norms and the rest are left out, so that a model built on these products is slower than what is printed.
//!
//!     candle_products MODEL.gguf PROMPT REPETITIONS
//!
//! Prints one JSON object: medians, tokens per second. `speed.py` calls it.

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use gguf_format::{GgmlType, GgufSplits};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

type Anything<T> = Result<T, Box<dyn std::error::Error>>;

fn dtype(ty: GgmlType) -> Option<GgmlDType> {
    Some(match ty {
        GgmlType::F32 => GgmlDType::F32,
        GgmlType::F16 => GgmlDType::F16,
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2_K => GgmlDType::Q2K,
        GgmlType::Q3_K => GgmlDType::Q3K,
        GgmlType::Q4_K => GgmlDType::Q4K,
        GgmlType::Q5_K => GgmlDType::Q5K,
        GgmlType::Q6_K => GgmlDType::Q6K,
        _ => return None,
    })
}

fn main() -> Anything<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, prompt, repetitions] = args.as_slice() else {
        return Err("candle_products MODEL.gguf PROMPT REPETITIONS".into());
    };
    let (prompt, repetitions): (usize, usize) = (prompt.parse()?, repetitions.parse()?);
    let gguf = GgufSplits::open(path)?;
    let tied = gguf.tensor("output.weight").is_none();
    let mut products = Vec::new();
    for tensor in gguf.tensors() {
        // An embedding is looked up, not multiplied, where it is not the head too.
        let name = tensor.name();
        let is_head = name == "output.weight" || tied && name == "token_embd.weight";
        if tensor.shape().len() != 2 || !is_head && !name.starts_with("blk.") {
            continue;
        }
        let cols = usize::try_from(tensor.row_len())?;
        let rows = usize::try_from(tensor.element_count())? / cols;
        let ty = dtype(tensor.ggml_type()).ok_or_else(|| format!("candle has no {}", tensor.ggml_type()))?;
        let data = gguf.data(tensor);
        // Copied to where f32 may lie: candle wants the alignment of its blocks.
        let mut aligned = vec![0f32; data.len().div_ceil(4)];
        let bytes = &mut bytemuck::cast_slice_mut::<f32, u8>(&mut aligned)[..data.len()];
        bytes.copy_from_slice(data);
        let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, ty)?;
        let matmul = QMatMul::from_arc(Arc::new(QTensor::new(storage, (rows, cols))?))?;
        products.push((matmul, cols, is_head));
    }
    let widest = products.iter().map(|p| p.1).max().ok_or("no weights")?;
    let noise: Vec<f32> = (0..widest * prompt.max(1)).map(|i| ((i * 7919) % 2048) as f32 / 1024.0 - 1.0).collect();
    let pass = |tokens: usize| -> Anything<f64> {
        let start = Instant::now();
        for (matmul, cols, is_head) in &products {
            // Logits of the last token only.
            let tokens = if *is_head { 1 } else { tokens };
            std::hint::black_box(matmul.forward(&Tensor::from_slice(
                &noise[..tokens * cols],
                (tokens, *cols),
                &Device::Cpu,
            )?)?);
        }
        Ok(start.elapsed().as_secs_f64())
    };
    let median = |tokens: usize| -> Anything<f64> {
        pass(tokens)?;
        let mut seconds = (0..repetitions.max(1)).map(|_| pass(tokens)).collect::<Anything<Vec<f64>>>()?;
        seconds.sort_by(f64::total_cmp);
        Ok(tokens as f64 / seconds[seconds.len() / 2])
    };
    println!("{{\"pp\": {:.3}, \"tg\": {:.3}}}", median(prompt)?, median(1)?);
    Ok(())
}
