//! What `verify` says of candle's reader is what candle's reader does, on files with random damage.

use candle_core::Device;
use candle_core::quantized::gguf_file::Content;
use gguf_format::verify::{Reader, Rule, verify};
use gguf_format::{GgmlType, Metadata, TensorSpec, WritePlan};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn sample() -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("general.alignment", 32u32);
    metadata.set("flags", [true, false]);
    metadata.set("tokens", ["a", "b"]);
    let spec = |name: &str, shape: &[u64], ty| TensorSpec { name: name.into(), shape: shape.into(), ty };
    let specs = [spec("a", &[8], GgmlType::F32), spec("b", &[2, 32], GgmlType::Q8_0), spec("c", &[3], GgmlType::F16)];
    WritePlan::new(&metadata, &specs).unwrap().to_bytes(&[&[0; 32], &[1; 68], &[2; 6]]).unwrap()
}

/// Reads the header and every tensor. candle divides by an alignment of 0.
fn candle_reads(bytes: &[u8]) -> bool {
    let read = || {
        let mut reader = Cursor::new(bytes);
        let content = Content::read(&mut reader)?;
        content.tensor_infos.keys().try_for_each(|name| content.tensor(&mut reader, name, &Device::Cpu).map(drop))
    };
    // Its panics are answers here, not worth a line each.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result: Result<candle_core::Result<()>, _> = catch_unwind(AssertUnwindSafe(read));
    std::panic::set_hook(hook);
    result.is_ok_and(|r| r.is_ok())
}

#[test]
fn verdict_on_candle_is_candles() {
    let sample = sample();
    assert!(candle_reads(&sample));
    let mut seed = 1u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) as usize) % below
    };
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = sample.clone();
        for _ in 0..1 + random(2) {
            let at = random(bytes.len() - 160);
            bytes[at] = if random(2) == 0 { random(256) as u8 } else { random(10) as u8 };
        }
        if random(8) == 0 {
            bytes.truncate(random(bytes.len()));
        }
        let report = verify(&bytes);
        // candle takes the magic backwards, an alignment of any type, the last of two equal names, and sizes modulo 2^64:
        // where that happens, what it does with the rest is its own affair.
        let aside = [
            Rule::BadMagic,
            Rule::AlignmentType,
            Rule::AlignmentNotPower,
            Rule::DuplicateTensor,
            Rule::DuplicateKey,
            Rule::TooLarge,
        ];
        if report.findings.iter().any(|f| aside.contains(&f.rule)) {
            continue;
        }
        let found = candle_reads(&bytes);
        *if found { &mut read } else { &mut refused } += 1;
        assert_eq!(report.refusal(Reader::Candle).is_none(), found, "{:?}", report.findings);
    }
    assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
}
