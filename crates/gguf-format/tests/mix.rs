//! The mixes against llama.cpp's own answers: 28 models, every file type, with and without an importance matrix; and the options.
//!
//! `data/mix.json` and `data/mix_options.json` hold what `llama_model_quantize` of llama-cpp-python 0.3.36 (llama.cpp 0c1e57098) prints in
//! a dry run over GGUF headers of these shapes.

use gguf_format::GgmlType;
use gguf_format::mix::{FileType, MixOptions, ModelFacts, Reason, TensorDesc, TypeOverride, plan};
use serde_json::Value;
use std::collections::BTreeMap;

fn golden(text: &str) -> Value {
    serde_json::from_str(text).expect("golden file")
}

struct Tensor {
    name: String,
    shape: Vec<u64>,
    ty: GgmlType,
    /// Index in the golden file's list, and of the layer in it.
    entry: usize,
    layer: usize,
}

fn str_of<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

fn num(v: &Value) -> u64 {
    v.as_u64().unwrap_or_default()
}

fn tensors_of(model: &Value) -> Vec<Tensor> {
    let mut out = Vec::new();
    for (entry, t) in model["tensors"].as_array().unwrap().iter().enumerate() {
        let shape: Vec<u64> = t["shape"].as_array().unwrap().iter().map(num).collect();
        let ty = GgmlType::from_name(str_of(t, "source")).unwrap();
        let layers = match t["layers"].as_array() {
            Some(r) => num(&r[0])..num(&r[1]),
            None => 0..1,
        };
        for (layer, l) in layers.enumerate() {
            let name = str_of(t, "name").replacen('*', &l.to_string(), 1);
            out.push(Tensor { name, shape: shape.clone(), ty, entry, layer });
        }
    }
    // The order given must not matter.
    out.sort_by(|a, b| b.name.cmp(&a.name));
    out
}

fn facts_of(model: &Value) -> ModelFacts {
    ModelFacts::new(str_of(model, "architecture"), num(&model["block_count"]) as usize)
        .with_heads(num(&model["heads"]), num(&model["kv_heads"]))
        .with_experts(num(&model["experts"]))
}

/// Our choice in the golden file's form: per entry, runs `TYPE*COUNT` over the layers.
fn runs(
    tensors: &[Tensor],
    model: &ModelFacts,
    options: &MixOptions,
) -> Result<BTreeMap<usize, String>, gguf_format::Error> {
    let list: Vec<_> = tensors.iter().map(|t| TensorDesc { name: &t.name, shape: &t.shape, ty: t.ty }).collect();
    let choices = plan(&list, model, options)?;
    let mut by_entry: BTreeMap<usize, BTreeMap<usize, GgmlType>> = BTreeMap::new();
    for (t, c) in tensors.iter().zip(&choices) {
        by_entry.entry(t.entry).or_default().insert(t.layer, c.ty);
    }
    let fold = |types: BTreeMap<usize, GgmlType>| {
        let mut out: Vec<(GgmlType, usize)> = Vec::new();
        for ty in types.into_values() {
            match out.last_mut() {
                Some((last, n)) if *last == ty => *n += 1,
                _ => out.push((ty, 1)),
            }
        }
        let text = out.iter().map(|(ty, n)| if *n > 1 { format!("{ty}*{n}") } else { ty.to_string() });
        text.collect::<Vec<_>>().join(" ")
    };
    Ok(by_entry.into_iter().map(|(e, types)| (e, fold(types))).collect())
}

#[test]
fn every_file_type_of_every_model_as_llama_cpp_chooses() {
    let doc = golden(include_str!("data/mix.json"));
    let models = doc["models"].as_array().unwrap();
    assert!(models.len() >= 28);
    let (mut compared, mut failures) = (0, Vec::new());
    for model in models {
        let (tensors, facts) = (tensors_of(model), facts_of(model));
        let refused: Vec<&str> = model["refused"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for &file_type in FileType::KNOWN {
            for (importance, mark) in [(false, '-'), (true, '+')] {
                let mut options = MixOptions::new(file_type);
                options.has_importance = importance;
                let label = format!("{} {file_type}{mark}", str_of(model, "name"));
                let ours = match runs(&tensors, &facts, &options) {
                    Ok(ours) => ours,
                    Err(e) => {
                        if !refused.contains(&format!("{file_type}{mark}").as_str()) {
                            failures.push(format!("{label}: {e}"));
                        }
                        continue;
                    }
                };
                let (plain, marked) = (file_type.to_string(), format!("{file_type}{mark}"));
                for (i, entry) in model["tensors"].as_array().unwrap().iter().enumerate() {
                    let theirs = entry["types"].as_object().unwrap().iter().find(|(_, file_types)| {
                        let list = file_types.as_str().unwrap_or_default();
                        list == "all" || list.split(' ').any(|f| f == plain || f == marked)
                    });
                    let theirs = theirs.map_or("nothing", |(outcome, _)| outcome);
                    if ours[&i] != theirs {
                        failures.push(format!("{label} {}: ours {}, theirs {theirs}", str_of(entry, "name"), ours[&i]));
                    }
                    compared += 1;
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of {compared} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 20_000, "{compared}");
}

#[test]
fn options_as_llama_cpp_takes_them() {
    let models = golden(include_str!("data/mix.json"));
    let doc = golden(include_str!("data/mix_options.json"));
    let mut failures = Vec::new();
    for case in doc["cases"].as_array().unwrap() {
        let name = str_of(case, "model");
        let model = models["models"].as_array().unwrap().iter().find(|m| str_of(m, "name") == name).unwrap();
        let tensors = tensors_of(model);
        let mut options = MixOptions::new(FileType::from_name(str_of(case, "file_type")).unwrap());
        let asked = &case["options"];
        options.pure = asked["pure"] == true;
        options.keep_output = asked["keep_output"] == true;
        options.output_type = GgmlType::from_name(str_of(asked, "output_type"));
        options.token_embedding_type = GgmlType::from_name(str_of(asked, "token_embedding_type"));
        for o in asked["overrides"].as_array().into_iter().flatten() {
            let ty = GgmlType::from_name(o[1].as_str().unwrap()).unwrap();
            options.overrides.push(TypeOverride::new(o[0].as_str().unwrap(), ty).unwrap());
        }
        let ours = match runs(&tensors, &facts_of(model), &options) {
            Ok(ours) => ours,
            Err(e) => {
                // A dry run there does not notice that a type asked for by name does not fit the rows; the real run aborts.
                let asked_embedding = GgmlType::from_name(str_of(asked, "token_embedding_type"));
                assert_eq!((name, asked_embedding), ("qwen2.5-0.5b", Some(GgmlType::Q5_K)), "{e}");
                continue;
            }
        };
        for (i, entry) in model["tensors"].as_array().unwrap().iter().enumerate() {
            let Some(theirs) = case["types"][str_of(entry, "name")].as_str() else { continue };
            if ours[&i] != theirs {
                let label = format!("{name} {} {asked}", options.file_type);
                failures.push(format!("{label} {}: ours {}, theirs {theirs}", str_of(entry, "name"), ours[&i]));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Counts published in llama.cpp's own `tests/snapshots`, for a reader to check by eye.
#[test]
fn known_counts() {
    let doc = golden(include_str!("data/mix.json"));
    for (name, file_type, tensor, expected) in [
        ("qwen3-14b", FileType::Q4_K_M, "blk.*.attn_v.weight", [(GgmlType::Q6_K, 20), (GgmlType::Q4_K, 20)]),
        ("qwen3-14b", FileType::Q4_K_S, "blk.*.ffn_down.weight", [(GgmlType::Q5_K, 5), (GgmlType::Q4_K, 35)]),
        ("qwen3-14b", FileType::Q3_K_M, "blk.*.ffn_down.weight", [(GgmlType::Q5_K, 2), (GgmlType::Q4_K, 38)]),
        ("llama-3.1-70b", FileType::Q4_K_M, "blk.*.attn_v.weight", [(GgmlType::Q6_K, 40), (GgmlType::Q5_K, 40)]),
        ("gpt-oss-120b", FileType::Q4_K_M, "blk.*.attn_v.weight", [(GgmlType::Q5_0, 18), (GgmlType::Q8_0, 18)]),
    ] {
        let model = doc["models"].as_array().unwrap().iter().find(|m| str_of(m, "name") == name).unwrap();
        let entry = model["tensors"].as_array().unwrap().iter().position(|t| str_of(t, "name") == tensor).unwrap();
        let tensors = tensors_of(model);
        let list: Vec<_> = tensors.iter().map(|t| TensorDesc { name: &t.name, shape: &t.shape, ty: t.ty }).collect();
        let choices = plan(&list, &facts_of(model), &MixOptions::new(file_type)).unwrap();
        for (ty, count) in expected {
            let found = tensors.iter().zip(&choices).filter(|(t, c)| t.entry == entry && c.ty == ty).count();
            assert_eq!(found, count, "{name} {file_type} {tensor} {ty}");
        }
    }
}

#[test]
fn refusals_name_the_tensor() {
    let ask = |name: &str, shape: &[u64], model: &ModelFacts, options: &MixOptions| {
        plan(&[TensorDesc { name, shape, ty: GgmlType::F16 }], model, options).map(|c| c[0].clone())
    };
    let dense = ModelFacts::new("llama", 2);
    let mut options = MixOptions::new(FileType::Q4_K_M);
    options.output_type = Some(GgmlType::Q6_K);
    let e = ask("output.weight", &[100, 96], &dense, &options).unwrap_err().to_string();
    assert_eq!(e, "tensor `output.weight`: its rows of 96 values are no whole number of Q6_K blocks");

    let e = ask("x.weight", &[4, 48], &dense, &MixOptions::new(FileType::Q1_0)).unwrap_err().to_string();
    assert!(e.contains("`x.weight`") && e.contains("48"), "{e}");

    let experts = ModelFacts::new("llama", 2).with_experts(8);
    let e =
        ask("blk.9.ffn_down_exps.weight", &[8, 256, 256], &experts, &MixOptions::new(FileType::Q4_K_M)).unwrap_err();
    assert!(e.to_string().contains("layer below 2"), "{e}");

    let e = plan(&[], &dense, &MixOptions::new(FileType::from_id(77))).unwrap_err().to_string();
    assert!(e.contains("file-type-77"), "{e}");

    let c = ask("blk.0.ffn_up.weight", &[64, 160], &dense, &MixOptions::new(FileType::Q4_K_M)).unwrap();
    assert_eq!((c.ty, c.reason), (GgmlType::Q5_0, Reason::Fallback(GgmlType::Q4_K)));
    let c = ask("blk.0.ffn_up.weight", &[256, 256], &dense, &MixOptions::new(FileType::Q2_K_S)).unwrap();
    assert!(c.needs_importance);
}
