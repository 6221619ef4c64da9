//! The codes of a packed directory in another layout: GPTQ's, AWQ's or compressed-tensors'.
//!
//!     cargo run --release -p quant-runtime --example repack -- SOURCE PACKED OUT gptq_v2|awq|compressed-tensors
//!
//! SOURCE is the dense model that PACKED was made from; tensors that are dense in both come from it.

use awq::checkpoint::AwqConfig;
use compressed_tensors::Config;
use gptq::checkpoint::GptqConfig;
use quant_core::affine::Bits;
use quant_runtime::checkpoint::{HfDir, PackedConfig};
use quant_runtime::hf_writer::WriteOptions;
use quant_runtime::packed_dir::PackedDirWriter;
use std::collections::BTreeMap;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, packed, out, layout] = args.as_slice() else {
        return Err("SOURCE PACKED OUT gptq_v2|awq|compressed-tensors".into());
    };
    let (source, dir) = (Arc::new(HfDir::open(source)?), HfDir::open(packed)?);
    let modules = dir.packed()?.ok_or("PACKED is not quantized")?;
    let summary = modules.config().summary();
    let bits = Bits::new(summary.bits).ok_or("codes of other than 2 to 8 bits")?;
    let config: PackedConfig = match layout.as_str() {
        "gptq_v2" => {
            GptqConfig { desc_act: summary.act_order, ..GptqConfig::new(bits, summary.group_size, false) }.into()
        }
        "awq" => AwqConfig::new(bits, summary.group_size, true).into(),
        "compressed-tensors" => Config::packed(bits, summary.group_size, summary.symmetric).into(),
        other => return Err(format!("no layout `{other}`").into()),
    };
    let mut writer = PackedDirWriter::create(source, out.as_ref(), config, &WriteOptions::default())?;
    // A part for each layer, so that memory holds one.
    let mut layers: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for module in modules.names() {
        let layer = module.split('.').find_map(|part| part.parse().ok()).unwrap_or(u32::MAX);
        layers.entry(layer).or_default().push(module);
    }
    for (layer, names) in layers {
        let mut part = writer.part(layer);
        for name in names {
            if let Some(matrix) = modules.matrix(name)? {
                part.module(name, &matrix, None)?;
            }
        }
        writer.commit(part, "")?;
    }
    let written = writer.finish()?;
    println!("{}: {} bytes", written.path.display(), written.bytes);
    Ok(())
}
