//! How often a generated token asks for memory: for its logits and the tensor around them, however many layers there are.

use gguf_format::mix::{FileType, MixOptions};
use quant_runtime::convert::ModelSource;
use quant_runtime::quantize::{QuantizeOptions, QuantizePlan};
use quant_runtime::{CacheChoice, Checkpoint, Device, LogitRows, Model};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, which counts.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's own, with the same arguments; `realloc` and `alloc_zeroed` are made of these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most of some tokens of a model that has been running for a while. All in one test: the count is of the whole process.
fn most_per_token(model: &Model) -> usize {
    let mut cache = model.new_cache_of(CacheChoice::F32).unwrap();
    let tokens: Vec<u32> = (5..39).collect();
    model.forward(&tokens[..33], &mut cache, LogitRows::None).unwrap();
    let mut token = |id: u32| {
        let before = COUNT.load(Ordering::Relaxed);
        model.forward(&[id], &mut cache, LogitRows::Last).unwrap();
        COUNT.load(Ordering::Relaxed) - before
    };
    // Buffers grow, weights are moved. Positions 33 to 63 are in one block of the cache, which takes a new one a layer every 32.
    for i in 0..20 {
        token(5 + i);
    }
    (0..10).map(|i| token(5 + i)).max().unwrap()
}

#[test]
fn a_token_asks_for_memory_a_few_times() {
    let pocket = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket-6m");
    let checkpoint = Checkpoint::open(&pocket).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut paths = vec![pocket];
    for (name, file_type) in [("q4_k_m.gguf", FileType::Q4_K_M), ("q8_0.gguf", FileType::Q8_0)] {
        let path = dir.path().join(name);
        let options = QuantizeOptions::new(MixOptions::new(file_type));
        let source = ModelSource::open(&checkpoint).unwrap();
        QuantizePlan::new(&source, options).unwrap().run(&path, &|_| ControlFlow::Continue(())).unwrap();
        paths.push(path);
    }
    for path in paths {
        for repacked in [true, false] {
            let checkpoint = Checkpoint::open(&path).unwrap();
            let load = if repacked { Model::load_repacked } else { Model::load };
            let mut model = load(&checkpoint, &Device::Cpu).unwrap();
            model.set_integer_products(true);
            let most = most_per_token(&model);
            println!("{}, repacked {repacked}: {most}", path.display());
            assert!(
                most <= 12 + rayon::current_num_threads(),
                "{}, repacked {repacked}: {most} allocations a token",
                path.display()
            );
        }
    }
}
