//! `quant activations`: the table, the JSON, the pictures, and what is refused.

mod common;

use common::{MODEL, fails, json, out, text};

#[test]
fn every_input_of_every_layer() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let svg = dir.path().join("pictures/of");
    let of = ["activations", MODEL, &text, "--samples", "8", "--seq-len", "64"];
    let report = json(&[&of[..], &["--json", "--svg", svg.to_str().unwrap()]].concat());
    assert_eq!(report["tokens"], 8 * 64);
    let inputs = report["inputs"].as_array().unwrap();
    assert_eq!(inputs.len(), 24);
    for (i, input) in inputs.iter().enumerate() {
        assert_eq!(input["layer"], i / 4);
        assert_eq!(input["input"], ["q k v", "o", "gate up", "down"][i % 4]);
        assert_eq!(input["channels"].as_u64().unwrap() as usize, input["channel_max"].as_array().unwrap().len());
        let number = |key: &str| input[key].as_f64().unwrap();
        let most = input["channel_max"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).fold(0.0, f64::max);
        assert_eq!(number("abs_max"), most);
        assert!(number("kurtosis") > 1.0 && number("peak") > 1.0 && number("outlier_share") < 0.2, "{i}");
        let error = |key: &str| input["errors"][key].as_f64().unwrap();
        let errors = &input["errors"];
        // Weights alone err less than with activations, one scale for all tokens more than one for each; what was accepted helps.
        assert!(error("weights") > 0.001 && error("weights") < error("int8"), "{i}: {errors}");
        assert!(error("smoothed") <= error("int8") * 1.05 && error("int8") < error("int8_static"), "{i}: {errors}");
        assert!(error("rotated") < 0.02 && error("fp8") > 0.01, "{i}: {errors}");
    }
    let pictures = report["svg"].as_array().unwrap();
    assert_eq!(pictures.len(), 6);
    for picture in pictures {
        let picture = std::fs::read_to_string(picture.as_str().unwrap()).unwrap();
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.matches("<polyline").count(), 12);
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
    let table = out(&of);
    let header = table.lines().next().unwrap();
    assert!(header.contains("kurtosis") && header.contains("rotated"), "{table}");
    assert_eq!(table.lines().count(), 1 + 24 + 4);
}

#[test]
fn what_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let empty = dir.path().join("empty.txt");
    std::fs::write(&empty, "").unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&[MODEL, empty.to_str().unwrap()], "no token"),
        (&[MODEL, &text, "--samples", "0"], "sample"),
        (&[MODEL, &text, "--samples", "4", "--seq-len", "64", "--svg", &text], "text.txt"),
        (&["/nowhere", &text], "nowhere"),
    ];
    for (options, expected) in cases {
        let (code, error) = fails(&[&["activations"][..], options].concat());
        assert!(code != 0 && error.contains(expected), "{expected}: {error}");
    }
}
