//! Products with packed weights: [4096, 4096] with one token, whose work is reading the weights, with 4, and with 64; with f32 activations, and with rounded
//! ones in place and with 16 rows side by side.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gguf_format::{GgmlType, blocks};
use half::f16;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use quant_kernels::{AffineWeights, Interleaved, Matrix, matmul, matmul_interleaved, matmul_rounded};

const N: usize = 4096;

/// Of about a weight's size, in -1 .. 1, the same in every run.
fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn affine(bits: u8, group_size: usize) -> AffineWeights {
    let bits = Bits::new(bits).expect("2 to 8");
    let groups = N / group_size;
    let matrix = AffineMatrix::from_parts(AffineParts {
        out_features: N,
        in_features: N,
        bits,
        group_size,
        codes: values(N * N).iter().map(|v| (v.abs() * 256.0) as u8 & bits.max_code()).collect(),
        scales: vec![f16::from_f32(0.01); N * groups],
        zeros: vec![u16::from(bits.middle()); N * groups],
        g_idx: None,
    });
    AffineWeights::pack(&matrix.expect("a matrix")).expect("packed")
}

fn products(c: &mut Criterion) {
    let weights = values(N * N);
    let ggml: Vec<(GgmlType, Vec<u8>)> = [GgmlType::Q4_0, GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q8_0]
        .map(|ty| {
            let mut bytes = vec![0; ty.bytes_for((N * N) as u64).expect("whole blocks") as usize];
            blocks::quantize(ty, &weights, N, None, &mut bytes).expect("quantized");
            (ty, bytes)
        })
        .into();
    let affine = [(4, 128), (4, 32), (3, 64), (2, 32), (8, 128)].map(|(b, g)| (format!("{b} bits g{g}"), affine(b, g)));
    let mut matrices: Vec<(String, Matrix<'_>)> =
        ggml.iter().map(|(ty, bytes)| (ty.to_string(), Matrix::new(*ty, N, N, bytes).expect("a matrix"))).collect();
    matrices.extend(affine.iter().map(|(name, weights)| (name.clone(), weights.matrix())));
    let packed: Vec<Vec<u8>> = matrices
        .iter()
        .map(|(_, w)| {
            let mut bytes = vec![0; Interleaved::bytes(w.ty, N, N).expect("a layout")];
            Interleaved::pack(w, &mut bytes).expect("packed");
            bytes
        })
        .collect();
    for tokens in [1, 4, 64] {
        let mut group = c.benchmark_group(format!("matmul, {tokens} tokens"));
        group.throughput(Throughput::Elements((N * N * tokens) as u64)).sample_size(20);
        let x = values(tokens * N);
        let mut y = vec![0.0; tokens * N];
        for ((name, matrix), packed) in matrices.iter().zip(&packed) {
            group.bench_function(format!("{name}, f32"), |b| {
                b.iter(|| matmul(&x, tokens, &[*matrix], &mut y).expect("a product"));
            });
            group.bench_function(format!("{name}, integers"), |b| {
                b.iter(|| matmul_rounded(&x, tokens, &[*matrix], &mut y).expect("a product"));
            });
            let interleaved = Interleaved::new(matrix.ty, N, N, packed).expect("a matrix");
            group.bench_function(format!("{name}, side by side"), |b| {
                b.iter(|| matmul_interleaved(&x, tokens, &[interleaved], &mut y).expect("a product"));
            });
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
