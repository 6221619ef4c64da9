//! Four layers of a small model beside the same search in torch (`data/gram_search.py`, stored in `data/gram_search.json`).

use awq::{Bits, Inputs, Kind, Member, Options, ScaleGroup};
use quant_core::UpperTriangle;
use quant_core::input_stats::{InputStats, InputStatsParts};
use safetensors::SafeTensors;
use std::path::PathBuf;

const ROWS: u64 = 8192;

/// `shared/<name>` beside the workspace; says so where it is missing.
fn shared(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: shared/{name} is not beside the workspace");
    None
}

fn values(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap();
    data.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Weights and statistics of a layer.
fn layer(file: &SafeTensors<'_>, name: &str) -> (Vec<f32>, InputStats) {
    let square = values(file, &format!("{name}.gram"));
    let n = square.len().isqrt();
    let packed = (0..n).flat_map(|i| square[i * n + i..(i + 1) * n].iter().copied()).collect();
    let stats = InputStats::from_parts(InputStatsParts {
        count: ROWS,
        sum_squares: (0..n).map(|i| f64::from(square[i * n + i])).collect(),
        abs_sum: values(file, &format!("{name}.abs_mean")).iter().map(|v| f64::from(*v) * ROWS as f64).collect(),
        abs_max: vec![0.0; n],
        gram: UpperTriangle::from_packed(n, packed),
    });
    (values(file, &format!("{name}.weight")), stats.unwrap())
}

#[test]
fn at_least_as_good_as_the_same_search_in_torch() {
    let Some(folder) = shared("golden/gptq") else { return };
    let bytes = std::fs::read(folder.join("layers.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let facts: serde_json::Value = serde_json::from_str(include_str!("data/gram_search.json")).unwrap();
    let cases = facts["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    println!(
        "| layer, bits, group | rounded | torch: ratio, scaled, clipped | ours: kind, ratio, scaled, clipped, one sweep, two |"
    );
    println!("|---|---|---|---|");
    for case in cases {
        let (name, bits) = (case["layer"].as_str().unwrap(), case["bits"].as_u64().unwrap() as u8);
        let group_size = case["group_size"].as_u64().unwrap() as usize;
        let [plain, ratio, scaled, clipped] =
            ["plain", "ratio", "scaled", "clipped"].map(|k| case[k].as_f64().unwrap());
        let (weights, stats) = layer(&file, name);
        let inputs = Inputs::new(&stats, None).unwrap();
        let rows = weights.len() / inputs.in_features();
        let mut options = Options::new(Bits::new(bits).unwrap(), Some(group_size));
        options.margin = 0.0;
        let group = ScaleGroup { members: &[Member { weights: &weights, out_features: rows }], ties: None };
        let scales = awq::search_scales(&inputs, &group, &options).unwrap();
        // The scales of the groups are f16 here and f32 there.
        assert!((scales.fit.plain / plain - 1.0).abs() < 2e-3, "{name} {bits}: {} {plain}", scales.fit.plain);
        assert!(scales.fit.best < 1.002 * scaled, "{name} {bits}: {} {scaled}", scales.fit.best);
        assert!(scales.kind != Kind::Duo || (scales.ratio - ratio).abs() < 0.11, "{name} {bits}: {}", scales.ratio);
        let mut losses = vec![];
        for sweeps in 0..3 {
            options.sweeps = sweeps;
            let clip = awq::search_clip(&inputs, &weights, rows, &scales.values, &options).unwrap();
            let rounded = awq::round(&weights, rows, &scales.values, Some(&clip), Some(&inputs), &options).unwrap();
            let loss = rounded.report.loss.unwrap();
            assert!((loss / clip.fit.best - 1.0).abs() < 1e-4, "{name} {bits}: {loss} {:?}", clip.fit);
            assert!(loss < 1.005 * clipped, "{name} {bits} {sweeps}: {loss} {clipped}");
            losses.push(loss);
        }
        let short = name.trim_start_matches("model.layers.");
        print!("| {short} {bits} g{group_size} | {plain:.4} | {ratio:.2}, {scaled:.4}, {clipped:.4} ");
        let [alone, once, twice] = losses[..] else { unreachable!() };
        assert!(twice < once && once < alone, "{name} {bits}: {losses:?}");
        let (kind, best) = (scales.kind, scales.fit.best);
        println!("| {kind:?}, {:.2}, {best:.4}, {alone:.4}, {once:.4}, {twice:.4} |", scales.ratio);
    }
}
