//! Quantizes a file of little-endian f32 to one ggml type and says how long it took: our side of
//! `benches/side_by_side/quantize_chunk.py`, and the codec API in one page.
//!
//! `cargo run --release -p gguf-format --example quantize_chunk -- TYPE ROW_LEN INPUT OUTPUT [IMPORTANCE]`
//! prints the least time of one pass over the input, in seconds, for quantizing and for dequantizing the result.

use std::time::Instant;

use gguf_format::{GgmlType, blocks};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [ty, row_len, input, output, importance @ ..] = &args[..] else {
        return Err("usage: quantize_chunk TYPE ROW_LEN INPUT OUTPUT [IMPORTANCE]".into());
    };
    let ty = GgmlType::from_name(ty).ok_or_else(|| format!("no type {ty}"))?;
    let row_len: usize = row_len.parse()?;
    let mut values = floats(input)?;
    let importance = importance.first().map(|path| floats(path)).transpose()?;
    let bytes = ty.bytes_for(values.len() as u64).ok_or("the values are not whole blocks")?;
    let mut blocks = vec![0; usize::try_from(bytes)?];

    let quantize = least(|| blocks::quantize(ty, &values, row_len, importance.as_deref(), &mut blocks))?;
    std::fs::write(output, &blocks)?;
    let dequantize = least(|| blocks::dequantize(ty, &blocks, &mut values))?;
    println!("{quantize} {dequantize}");
    Ok(())
}

fn floats(path: &str) -> std::io::Result<Vec<f32>> {
    Ok(std::fs::read(path)?.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// The least time of a run, in seconds: of five, and of as many as a third of a second has.
fn least<E>(mut run: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let (mut least, mut runs, begin) = (f64::INFINITY, 0, Instant::now());
    while runs < 5 || begin.elapsed().as_secs_f64() < 0.33 {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(least)
}
