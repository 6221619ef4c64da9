//! What is stored: ggml's bytes, and errors within what the presets promise.

#[path = "common/noise.rs"]
mod noise;

use gguf_format::{GgmlType, blocks};
use kv_cache_quant::{KvSpec, LayerCache, Preset};
use noise::{Centring, Entry, measure};
use quant_core::rotation::Rotation;

/// Rows that no two channels of are the same.
fn rows(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 10_007) as f32 * 0.618).sin() * (1.0 + (i % 13) as f32)).collect()
}

#[test]
fn ggml_types_have_the_bytes_of_ggml() {
    let (heads, tokens) = (2, 70);
    for (name, ty) in [
        ("q8_0", GgmlType::Q8_0),
        ("q5_1", GgmlType::Q5_1),
        ("q5_0", GgmlType::Q5_0),
        ("q4_1", GgmlType::Q4_1),
        ("q4_0", GgmlType::Q4_0),
        ("iq4_nl", GgmlType::IQ4_NL),
    ] {
        for d in [32, 64, 96, 128] {
            // llama.cpp turns keys by the largest power of two that divides the head and values by 64; both are sums of blocks here.
            for (suffix, largest) in [("", 0), ("+rot64", 64), ("+rot", 512)] {
                let side = format!("{name}{suffix}");
                let mut cache =
                    LayerCache::new(KvSpec::new(heads, d, side.parse().unwrap(), side.parse().unwrap())).unwrap();
                let rows = rows(tokens * heads * d);
                let values: Vec<f32> = rows.iter().rev().copied().collect();
                cache.append(&rows, &values, heads * d, tokens).unwrap();
                let rotation = Rotation::new(d, largest);
                for (given, is_value) in [(&rows, false), (&values, true)] {
                    for (i, row) in given.chunks_exact(d).enumerate() {
                        let mut row = row.to_vec();
                        rotation.apply(&mut row);
                        let mut expected = vec![0; ty.bytes_for(d as u64).unwrap() as usize];
                        blocks::quantize(ty, &row, d, None, &mut expected).unwrap();
                        let found = cache.ggml_row(i / heads, i % heads, is_value).unwrap();
                        assert_eq!(found, expected, "{side}, {d} channels, row {i}, values: {is_value}");
                        let mut exact = vec![0.0; d];
                        blocks::dequantize(ty, &expected, &mut exact).unwrap();
                        let mut pair = [vec![0.0; d], vec![0.0; d]];
                        let [k, v] = &mut pair;
                        cache.dequantize(i / heads, i % heads, k, v).unwrap();
                        if largest == 0 {
                            assert_eq!(pair[usize::from(is_value)], exact, "{side}, {d} channels, row {i}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn errors_are_those_promised() {
    let planted = Centring::Planted(64);
    // Codec of keys and centre; largest error of normal values, of logits of mild and of biased keys.
    for (codec, centring, normal, mild, biased) in [
        ("fp8", Centring::None, 7.0e-4, 2.0e-3, 5.0e-3),
        ("fp8-e5m2", Centring::None, 2.8e-3, 1.0, 1.0),
        ("int8", Centring::None, 4.3e-5, 8.5e-5, 1.0),
        ("int8", planted, 4.3e-5, 4.5e-5, 2.5e-5),
        ("r4", planted, 7.1e-3, 7.5e-3, 1.25e-2),
        ("r4", Centring::BlockMean, 7.1e-3, 7.5e-3, 1.25e-2),
        ("r3", planted, 3.0e-2, 3.0e-2, 4.0e-2),
        ("r2g32", planted, 0.112, 0.105, 0.060),
        ("r2", planted, 0.112, 1.0, 1.0),
    ] {
        let n = measure(&Entry { name: codec, codec, centring });
        let within = n.normal <= normal && n.normal_values <= normal && n.mild <= mild && n.biased <= biased;
        assert!(within, "{codec}, {centring:?}: {n:?}, at most {normal} {mild} {biased}");
    }
    // The same data does to others what their makers and users found: the yardstick is right.
    let of = |codec| measure(&Entry { name: codec, codec, centring: Centring::None });
    let (q4_0, kivi2) = (of("q4_0+rot"), of("kivi2"));
    assert!(q4_0.mild > 0.011 && q4_0.biased > 0.024, "{q4_0:?}");
    assert!(kivi2.normal > 0.15 && kivi2.mild > 0.11 && kivi2.biased > 0.06, "{kivi2:?}");
}

#[test]
fn presets_by_name() {
    for preset in Preset::ALL {
        assert_eq!(preset.name().parse::<Preset>().unwrap(), preset);
        let cache = LayerCache::new(preset.spec(8, 128, 5, 32, Default::default())).unwrap();
        let (key, value) = cache.bits_per_value();
        let expected = match preset {
            Preset::F16 => 16.0,
            Preset::Fp8 | Preset::Fp8E5m2 => 8.0625,
            Preset::Int8 => 8.125,
            Preset::K8v4 => 6.1875,
            Preset::R4 => 4.25,
            Preset::R3 => 3.25,
            Preset::R2 => 2.25,
        };
        assert_eq!((key + value) / 2.0, expected, "{preset}");
    }
    assert!("q4".parse::<Preset>().is_err());
}
