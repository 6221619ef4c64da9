//! Dequantizing against ggml: hashes of the values that its functions give for seeded bytes.

use gguf_format::{Error, GgmlType, blocks};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// SHA-256 of 16384 values in little-endian order, NaN written as 0x7fc00000, that ggml gives for the bytes of [`seeded_bytes`]
/// with the type's id as seed.
///
/// Source: `dequantize_row_*` of libggml-base in llama-cpp-python 0.3.36 (llama.cpp 0c1e57098, x86-64 without FMA), called
/// through ctypes; `gguf.quants.dequantize` of gguf-py 0.19.0 gives the same for each type that it reads, and alone for F16, BF16.
const FACTS: &[(GgmlType, &str)] = &[
    (GgmlType::F16, "c40c3b064c73dda75754eb47895ea3ef20efc873ee1ad77c65eddf7bb84fa9ba"),
    (GgmlType::BF16, "40d5cf1cab18ade6a5fe7c53f09de99b17289affa896ead4e9a6673aa633a196"),
    (GgmlType::Q4_0, "dbb85142782366bc3e2a5723529fe9508377bac3c38b6a159d2e0304c6f82914"),
    (GgmlType::Q4_1, "ecffc037af1581e1a9745a86bad7fd0a23230f8cbf7bcd3de39719ae35df0313"),
    (GgmlType::Q5_0, "a4bf64456a66b88d5be7299a333934f68963bfb21a3fdf4097b17517a701761d"),
    (GgmlType::Q5_1, "8294fe455642cfebde94b90494fa94abc7750143a9825b9573aa5ee510dc7abd"),
    (GgmlType::Q8_0, "88d13424f11c526100b3847b4cbec39ad18ef2212551aab5d6f15ccb46ebd94d"),
    (GgmlType::Q2_K, "546503d4261790e850e45c79054a867a1b1a2d3327677f174abe763df26ab247"),
    (GgmlType::Q3_K, "e85b1d07c40cb694937d3baa2fe35a8aa9c6a3be842da81b01d2eb4adfed00c3"),
    (GgmlType::Q4_K, "2f01a689e3e1881c4583327264b74bbf2eda5671f0230ce0ca08b3954ff3c868"),
    (GgmlType::Q5_K, "22e9746cff83b3a292ab7f0cce20c373b01c2120c433dd7f689bade4ae9f2738"),
    (GgmlType::Q6_K, "ef93bfb718f642a9813daba841acf254f15fce2200ca832417f0f85bd896bd61"),
    (GgmlType::IQ4_NL, "e6cefd5f718971c9bf9f61b56df5b92e67e5f7d6fe2f0aeb8694c8aa44db7630"),
    (GgmlType::IQ4_XS, "304360929762c7d2189b552eee7b8554f23194c78200fe702864d51a4d6cf8c4"),
    (GgmlType::IQ1_M, "2ea5528bd9f79537cbb0fbd5dbaa4b3de8029fb8ae3b7e1b9af9da33dfff8c49"),
    (GgmlType::IQ1_S, "b61206d6bc25093e6a526fcc968e6d392d11d6f589eda0a33c14a5faefcb4b04"),
    (GgmlType::IQ2_S, "228f89f918d01ee54a2a8fe741ffe39fea595397a2590132e5e8423a5e18af8b"),
    (GgmlType::IQ2_XS, "63757c8510b4bdc1e8fc81243381423b8e3df0109f3bfca234b39f6b8f74618c"),
    (GgmlType::IQ2_XXS, "1cf311898cac5eb87fa5ff90ebac4378aa659c818b9abd7c959998af78b21eba"),
    (GgmlType::IQ3_S, "d66cb8c9e001a37292ca9eab4a6f60cf747733e55943652f0473488256c35c82"),
    (GgmlType::IQ3_XXS, "6bd5a7f311a09957a332e1ad1d467b9ef4af3e0c59eb04aa1e982e1342984229"),
    (GgmlType::MXFP4, "6c9a167ee8fd04a4841167bdc7c33c9e230d7cda18a7a0ed646b36da9c7232b2"),
    (GgmlType::NVFP4, "00b46828eab70cff5e29f29fe28fe67b627fc722cf2db6c3b663f57d8ee8b744"),
    (GgmlType::Q1_0, "c42e594458422cc08e5fef8bc3632ede4878b357474987b6de6be8845c5b30ae"),
    (GgmlType::Q2_0, "92feb0948859a59b7e2137efe6af101fd8a044bd9dfbf71f1f6b7bef8f3fce34"),
    (GgmlType::TQ1_0, "699335b6dd5936e74f9d211469c8a393387c1c7a9d5695f2e60c1872cb53014b"),
    (GgmlType::TQ2_0, "e8c67be056e7bb0466b7faa1e7188411f35520337027c6155817c4d40a62d8a4"),
];

/// The first `n` bytes of splitmix64's output, little-endian.
fn seeded_bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    });
    words.flat_map(u64::to_le_bytes).take(n).collect()
}

fn hash(values: &[f32]) -> String {
    let mut sha = Sha256::new();
    for value in values {
        let bits = if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() };
        sha.update(bits.to_le_bytes());
    }
    format!("{:x}", sha.finalize())
}

#[test]
fn values_are_ggmls() {
    let mut wrong = Vec::new();
    for &(ty, expected) in FACTS {
        let src = seeded_bytes(ty.id().into(), ty.bytes_for(16384).unwrap() as usize);
        let mut values = vec![0.0; 16384];
        blocks::dequantize(ty, &src, &mut values).unwrap();
        if hash(&values) != expected {
            wrong.push(ty);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?} differ");
}

#[test]
fn every_readable_type_but_f32_has_a_fact() {
    for &ty in GgmlType::KNOWN {
        let stated = ty == GgmlType::F32 || FACTS.iter().any(|fact| fact.0 == ty);
        assert_eq!(blocks::can_dequantize(ty), stated, "{ty}");
    }
}

#[test]
fn f32_is_copied() {
    let mut values = [0.0; 2];
    blocks::dequantize(GgmlType::F32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0], &mut values).unwrap();
    assert_eq!(values, [1.0, -2.0]);
}

/// Blocks that are read together, and values that are written from any address on, are those of one block after the other.
#[test]
fn how_many_blocks_and_where_to_changes_nothing() {
    for &ty in GgmlType::KNOWN.iter().filter(|&&ty| blocks::can_dequantize(ty)) {
        let layout = ty.layout().unwrap();
        let (len, block_bytes) = (layout.block_len as usize, layout.block_bytes as usize);
        let most = if len == 1 { 100 } else { 19 };
        let bytes = seeded_bytes(9, most * block_bytes);
        let mut single = vec![0.0; most * len];
        for (bytes, values) in bytes.chunks(block_bytes).zip(single.chunks_mut(len)) {
            blocks::dequantize(ty, bytes, values).unwrap();
        }
        for n in 0..=most {
            for first in 0..9 {
                let mut room = vec![7.0; first + n * len + 1];
                blocks::dequantize(ty, &bytes[..n * block_bytes], &mut room[first..first + n * len]).unwrap();
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(room[first..].iter().zip(&single[..n * len]).all(same), "{ty}: {n} blocks from {first} on");
                assert!(room[..first].iter().chain(room.last()).all(|&x| x == 7.0), "{ty}: written elsewhere");
            }
        }
    }
}

#[test]
fn wrong_lengths_and_types_are_errors() {
    let mut values = [0.0; 32];
    let cases = [
        (GgmlType::Q4_0, 17, "Q4_0: expected a multiple of 18 bytes, found 17"),
        (GgmlType::Q4_0, 36, "Q4_0: expected room for 64 values, found 32"),
        (GgmlType::Q4_0, 0, "Q4_0: expected room for 0 values, found 32"),
        (GgmlType::I8, 32, "I8: no dequantize for this type"),
        (GgmlType::from_id(77), 32, "type-77: no dequantize for this type"),
    ];
    for (ty, bytes, expected) in cases {
        let error: Error = blocks::dequantize(ty, &vec![0; bytes], &mut values).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    blocks::dequantize(GgmlType::Q6_K, &[], &mut []).unwrap();
}

proptest! {
    #[test]
    fn any_bytes_dequantize(ty in prop::sample::select(GgmlType::KNOWN), bytes in prop::collection::vec(any::<u8>(), 512)) {
        if blocks::can_dequantize(ty) {
            let layout = ty.layout().unwrap();
            let blocks_in = bytes.len() / layout.block_bytes as usize;
            let mut values = vec![0.0; blocks_in * layout.block_len as usize];
            blocks::dequantize(ty, &bytes[..blocks_in * layout.block_bytes as usize], &mut values).unwrap();
        }
    }
}
