//! The committed corpus of the fuzz targets, replayed; and the bound on memory, on files made to ask for as much as they can.

#[path = "../fuzz/src/checks.rs"]
mod checks;
#[path = "../fuzz/src/counting.rs"]
mod counting;
#[path = "common/raw.rs"]
mod raw;

use gguf_format::{Gguf, Limits};
use std::path::Path;

#[test]
fn corpus_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    type Target = (&'static str, fn(&[u8]));
    const TARGETS: &[Target] = &[
        ("parse", checks::parse),
        ("parse", checks::edit),
        ("edit", checks::edit),
        ("imatrix", checks::imatrix),
        ("dequantize", checks::dequantize),
        ("quantize", checks::quantize),
    ];
    for (name, check) in TARGETS {
        let mut files: Vec<_> = std::fs::read_dir(folder.join(name)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name}");
        for file in files {
            // Shown where one fails.
            println!("{}", file.display());
            check(&std::fs::read(&file).unwrap());
        }
    }
}

/// Files of nothing but the smallest keys or tensors, for which the ratio of memory to bytes is the worst.
#[test]
fn memory_is_bounded_by_the_size_of_the_file() {
    let short_name =
        |i: u32| char::from_u32(0x100 + i % 0xd000).into_iter().chain((i >= 0xd000).then_some('x')).collect::<String>();
    let mut keys = raw::Raw::empty();
    (0..60_000).for_each(|i| keys.key(&short_name(i), 0, &[0]));
    let mut tensors = raw::Raw::empty();
    tensors.tensors = (0..60_000).map(|i| raw::tensor(&short_name(i), &[], 24, i.into())).collect();
    tensors.key("general.alignment", 4, &1u32.to_le_bytes());
    tensors.alignment = 1;
    tensors.data = vec![0; 60_000];
    let mut strings = raw::Raw::empty();
    strings.key("s", 9, &raw::array(8, &vec![&0u64.to_le_bytes()[..]; 60_000]));
    // Counts that the bytes could hold, and contents that end at once.
    let mut counts = raw::Raw::empty();
    counts.n_keys = Some(30_000);
    counts.key("x", 8, &raw::string(&vec![b'a'; 1 << 20]));
    for (name, raw) in [("keys", keys), ("tensors", tensors), ("strings", strings), ("counts", counts)] {
        let bytes = raw.bytes();
        let (result, usage) = counting::measure(|| Gguf::parse(&bytes[..], &Limits::default()).map(drop));
        assert_eq!(result.is_ok(), name != "counts", "{name}: {result:?}");
        let ratio = |n: usize| n as f64 / bytes.len() as f64;
        println!("{name}: largest {:.2}, peak {:.2} times the file", ratio(usage.largest), ratio(usage.peak));
        assert!(ratio(usage.largest) <= 2.0 && ratio(usage.peak) <= 8.0, "{name}: {usage:?} for {}", bytes.len());
    }
}
