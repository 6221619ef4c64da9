//! How long it takes to open a GGUF file and list its tensors: here and in candle. `open_gguf FILE [REPETITIONS]` prints a JSON object of
//! times in milliseconds. `side_by_side/open_gguf.py` runs it beside gguf-py.

use candle_core::quantized::gguf_file::Content;
use gguf_format::{Gguf, GgufReader, TensorInfo};
use std::fs::File;
use std::hint::black_box;
use std::io::BufReader;
use std::time::Instant;

type Run = (&'static str, fn(&str) -> usize);

/// Each lists names, shapes and types, and returns the number of characters.
const RUNS: &[Run] = &[
    ("map", |path| list(Gguf::open(path).unwrap().tensors())),
    ("reader", |path| list(GgufReader::open(path).unwrap().header().tensors())),
    ("candle_buffered", |path| candle(&Content::read(&mut BufReader::new(File::open(path).unwrap())).unwrap())),
    ("candle", |path| candle(&Content::read(&mut File::open(path).unwrap()).unwrap())),
];

fn list(tensors: &[TensorInfo]) -> usize {
    tensors.iter().map(|t| format!("{} {:?} {}", t.name(), t.shape(), t.ggml_type()).len()).sum()
}

fn candle(content: &Content) -> usize {
    content.tensor_infos.iter().map(|(name, t)| format!("{name} {:?} {:?}", t.shape, t.ggml_dtype).len()).sum()
}

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("FILE");
    let repetitions: usize = args.next().map_or(7, |n| n.parse().expect("a number"));
    let mut times = vec![Vec::new(); RUNS.len()];
    // In turn, so that a slow phase of the machine meets all.
    for _ in 0..repetitions {
        for ((_, run), times) in RUNS.iter().zip(&mut times) {
            let began = Instant::now();
            black_box(run(&path));
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let medians: Vec<String> = RUNS
        .iter()
        .zip(&mut times)
        .map(|((name, _), times)| {
            times.sort_by(f64::total_cmp);
            format!("\"{name}\": {:.3}", times[times.len() / 2])
        })
        .collect();
    println!("{{{}}}", medians.join(", "));
}
