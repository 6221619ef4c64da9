//! Four layers of a small model beside the authors' code (IST-DASLab/gptq 2d65066 on CPU torch, block size 128, damping 0.01).

use gptq::{Bits, Factor, FitFrom, GroupCodec, Options, Order, Passes, ScaleSearch};
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

/// One setting that the reference ran: `<layer>.b4.g128.act0.static0.sym0.mse0`.
struct Case {
    layer: String,
    bits: u8,
    group_size: Option<usize>,
    desc_act: bool,
    static_groups: bool,
    symmetric: bool,
    mse: bool,
    key: String,
    loss: f64,
    rtn_loss: f64,
}

impl Case {
    fn read(entry: &serde_json::Value) -> Self {
        let key = entry["key"].as_str().unwrap();
        let (layer, settings) = key.rsplit_once(".b").unwrap();
        let mut settings = settings.split('.');
        let mut next = |prefix: &str| settings.next().unwrap().strip_prefix(prefix).unwrap().parse::<i64>().unwrap();
        Self {
            layer: layer.to_owned(),
            bits: next("") as u8,
            group_size: usize::try_from(next("g")).ok(),
            desc_act: next("act") == 1,
            static_groups: next("static") == 1,
            symmetric: next("sym") == 1,
            mse: next("mse") == 1,
            key: key.to_owned(),
            loss: entry["proxy_loss_gptq"].as_f64().unwrap(),
            rtn_loss: entry["proxy_loss_rtn"].as_f64().unwrap(),
        }
    }

    fn title(&self) -> String {
        let layer = self.layer.trim_start_matches("model.layers.");
        let group = self.group_size.map_or("row".to_owned(), |g| format!("g{g}"));
        let order = match (self.desc_act, self.static_groups) {
            (false, _) => "natural",
            (true, false) => "desc_act",
            (true, true) => "desc_act static",
        };
        let grid = if self.symmetric { "symmetric" } else { "asymmetric" };
        format!("{layer} {} {group} {order} {grid}{}", self.bits, if self.mse { " mse" } else { "" })
    }

    fn options(&self) -> Options {
        let mut options = Options::new(Bits::new(self.bits).unwrap(), self.group_size);
        (options.symmetric, options.shrink, options.keep_gain) = (self.symmetric, 0.0, false);
        options.order = match self.desc_act {
            true => Order::DescAct { static_groups: self.static_groups },
            false => Order::Natural,
        };
        options
    }
}

struct Layer {
    out_features: usize,
    weights: Vec<f32>,
    gram: UpperTriangle,
    stats: InputStats,
}

fn values(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap();
    data.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

impl Layer {
    fn read(file: &SafeTensors<'_>, name: &str) -> Self {
        let square = values(file, &format!("{name}.gram"));
        let n = square.len().isqrt();
        let packed = (0..n).flat_map(|i| square[i * n + i..(i + 1) * n].iter().copied()).collect();
        let gram = UpperTriangle::from_packed(n, packed).unwrap();
        let stats = InputStats::from_parts(InputStatsParts {
            count: ROWS,
            sum_squares: (0..n).map(|i| f64::from(gram.get(i, i))).collect(),
            abs_sum: vec![0.0; n],
            abs_max: vec![0.0; n],
            gram: Some(gram.clone()),
        })
        .unwrap();
        let weights = values(file, &format!("{name}.weight"));
        Self { out_features: weights.len() / n, weights, gram, stats }
    }
}

/// For each case its layer and the reference's dequantized weights.
fn for_each_case(mut visit: impl FnMut(&Case, &Layer, &[f32])) {
    let Some(folder) = shared("golden/gptq") else { return };
    let bytes = std::fs::read(folder.join("layers.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let json = std::fs::read(folder.join("layers.losses.json")).unwrap();
    let entries: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
    assert_eq!(entries.len(), 40);
    let mut layer: Option<(String, Layer)> = None;
    for entry in &entries {
        let case = Case::read(entry);
        if layer.as_ref().is_none_or(|(name, _)| *name != case.layer) {
            layer = Some((case.layer.clone(), Layer::read(&file, &case.layer)));
        }
        visit(&case, &layer.as_ref().unwrap().1, &values(&file, &case.key));
    }
}

/// The quantizer of the authors' `quant.py`: f32 scales from the range of the weights with 0 in it, optionally shrunk to the least
/// `Σ |w − q|^2.4` over 80 hundredths.
struct ReferenceGrid {
    max: f32,
    symmetric: bool,
    mse: bool,
}

impl ReferenceGrid {
    fn spanning(&self, low: f32, high: f32) -> (f32, f32) {
        let scale = (high - low) / self.max;
        (scale, if self.symmetric { (self.max + 1.0) / 2.0 } else { (-low / scale).round_ties_even() })
    }

    fn nearest(&self, (scale, zero): (f32, f32), weight: f32) -> (f32, f32) {
        let code = ((weight / scale).round_ties_even() + zero).clamp(0.0, self.max);
        (code, scale * (code - zero))
    }
}

impl GroupCodec for ReferenceGrid {
    type Params = (f32, f32);

    fn fit(&self, weights: &[f32], _: &[f32]) -> (f32, f32) {
        let mut low = weights.iter().copied().fold(0.0, f32::min);
        let mut high = weights.iter().copied().fold(0.0, f32::max);
        if self.symmetric {
            high = high.max(-low);
            low = if low < 0.0 { -high } else { low };
        }
        if low == 0.0 && high == 0.0 {
            (low, high) = (-1.0, 1.0);
        }
        if !self.mse {
            return self.spanning(low, high);
        }
        let shrunk = (0..80).map(|i| self.spanning(low * (1.0 - i as f32 / 100.0), high * (1.0 - i as f32 / 100.0)));
        let error = |p| weights.iter().map(|&w| (self.nearest(p, w).1 - w).abs().powf(2.4)).sum::<f32>();
        shrunk.map(|p| (error(p), p)).reduce(|best, other| if other.0 < best.0 { other } else { best }).unwrap().1
    }

    fn value(&self, params: &(f32, f32), _slot: usize, code: u8) -> f32 {
        params.0 * (f32::from(code) - params.1)
    }

    fn round(&self, params: &(f32, f32), _slot: usize, weight: f32) -> (u8, f32) {
        let (code, value) = self.nearest(*params, weight);
        (code as u8, value)
    }
}

#[test]
fn codes_of_the_reference() {
    let (mut all, mut equal) = (0, 0);
    for_each_case(|case, layer, want| {
        let grid = ReferenceGrid { max: ((1u32 << case.bits) - 1) as f32, symmetric: case.symmetric, mse: case.mse };
        let factor = Factor::new(&layer.stats, &case.options()).unwrap();
        let n = factor.in_features();
        let passes = Passes { fit_from: FitFrom::BlockStart, refine: 0, keep_gain: false };
        let got = gptq::quantize_onto(&grid, &layer.weights, layer.out_features, &factor, passes).unwrap();
        // The reference's weights are those of its own scales: where the scales agree, half a step tells one code from the next.
        let group_size = case.group_size.unwrap_or(n);
        let groups = n.div_ceil(group_size);
        let g_idx = factor.g_idx();
        let mut same = 0;
        for (at, (&code, want)) in got.codes.iter().zip(want).enumerate() {
            let group = g_idx.as_ref().map_or(at % n / group_size, |g| g[at % n] as usize);
            let (scale, zero) = got.params[at / n * groups + group];
            same += usize::from((scale * (f32::from(code) - zero) - want).abs() < 0.25 * scale);
        }
        println!("{:<62} {:.5}", case.key, same as f64 / want.len() as f64);
        all += want.len();
        equal += same;
    });
    if all > 0 {
        println!("all: {:.5}", equal as f64 / all as f64);
    }
    assert!(equal as f64 >= 0.999 * all as f64, "{equal} of {all}");
}

#[test]
fn losses_beside_the_reference() {
    println!(
        "| layer, bits, group, order, grid | rounded | reference | min-max | MSE | Hessian | order | 1 sweep | 2 sweeps |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut logs = [0.0f64; 6];
    for_each_case(|case, layer, want| {
        let run = |order: Order, search: ScaleSearch, refine: usize| {
            let mut options = case.options();
            (options.order, options.search, options.refine) = (order, search, refine);
            let factor = Factor::new(&layer.stats, &options).unwrap();
            let got = gptq::quantize(&layer.weights, layer.out_features, &factor, &options).unwrap();
            let mut values = vec![0.0; layer.weights.len()];
            got.matrix.dequantize_into(&mut values).unwrap();
            let loss = gptq::loss(&layer.weights, &values, &layer.gram, ROWS).unwrap();
            let reported = got.report.loss.unwrap();
            assert!((loss - reported).abs() < 1e-3 * loss, "{}: {loss} {reported}", case.key);
            assert!(loss < case.rtn_loss, "{}: {loss}", case.key);
            loss
        };
        let reference = gptq::loss(&layer.weights, want, &layer.gram, ROWS).unwrap();
        assert!((reference - case.loss).abs() < 1e-3 * reference, "{}: {reference}", case.key);
        let (order, aware) = (case.options().order, Order::ActGroupAware);
        let losses = [
            run(order, ScaleSearch::MinMax, 0),
            run(order, ScaleSearch::Mse, 0),
            run(order, ScaleSearch::Hessian, 0),
            run(aware, ScaleSearch::Hessian, 0),
            run(aware, ScaleSearch::Hessian, 1),
            run(aware, ScaleSearch::Hessian, 2),
        ];
        print!("| {} | {:.4} | {:.4} ", case.title(), case.rtn_loss, case.loss);
        for (loss, log) in losses.iter().zip(&mut logs) {
            print!("| {:.3} ", loss / case.loss);
            *log += (loss / case.loss).ln() / 40.0;
        }
        println!("|");
        let [_, _, hessian, aware, once, twice] = losses;
        assert!(hessian < case.loss, "{}: {hessian}", case.key);
        assert!(twice < once && once < aware && twice < case.loss, "{}: {losses:?}", case.key);
        // The reference's own orders by activation are another algorithm, with a `g_idx` or with scales from the start.
        assert!(case.desc_act || aware < case.loss, "{}: {aware}", case.key);
    });
    println!("geometric mean {:.3?}", logs.map(f64::exp));
}
