//! `quant edit`: keys and tensors of a GGUF file changed, everything else copied byte for byte.

mod assignment;

use crate::error::{CliError, CliResult};
use crate::output::{count, print_json, to_stdout};
use assignment::{Assignment, parse_assignment, parse_pair};
use gguf_format::{Edit, Gguf};
use serde_json::json;
use std::path::PathBuf;

/// Change keys, names, tensors, alignment or byte order of a GGUF file; copy everything else byte for byte.
///
/// OUT may be GGUF itself: it is written to a temporary file first and replaced when that is complete. Whatever the order of the options,
/// names change first, then keys and tensors are removed, then set or replaced: --remove and --set take the new names.
///
/// A value is TYPE:VALUE, where TYPE is u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, bool (true or false), string (all that follows,
/// as it is), or an array of these: `array[i32]:1,2,3` or, as a JSON list, `array[string]:["a","b, c"]`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The file to edit.
    #[arg(value_name = "GGUF")]
    file: PathBuf,
    /// Where the result goes; may be GGUF itself.
    out: PathBuf,
    /// Set a key, in its place or as the last one: general.name=string:Tiny, llama.rope.freq_base=f32:1e6.
    #[arg(long, value_name = "KEY=TYPE:VALUE", value_parser = parse_assignment)]
    set: Vec<Assignment>,
    /// Set a key to the text of a file, a chat template for example.
    #[arg(long, value_name = "KEY=FILE", value_parser = parse_pair)]
    set_file: Vec<(String, String)>,
    /// Remove a key.
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Give a key another name, in its place.
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_pair)]
    rename: Vec<(String, String)>,
    /// Give a tensor another name, in its place.
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_pair)]
    rename_tensor: Vec<(String, String)>,
    /// Remove a tensor.
    #[arg(long, value_name = "NAME")]
    remove_tensor: Vec<String>,
    /// Take type, shape and data of a tensor from another GGUF file, where it has the same name.
    #[arg(long, value_name = "NAME=GGUF", value_parser = parse_pair)]
    replace_tensor: Vec<(String, String)>,
    /// Pad tensors to a multiple of N bytes, a power of two.
    #[arg(long, value_name = "N", value_parser = parse_alignment)]
    alignment: Option<u32>,
    /// Byte order of all numbers, those in the tensors included.
    #[arg(long, value_name = "ORDER")]
    byte_order: Option<Order>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Order {
    Little,
    Big,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let file = Gguf::open(&self.file)?;
        let donors =
            self.replace_tensor.iter().map(|(_, path)| Ok(Gguf::open(path)?)).collect::<CliResult<Vec<_>>>()?;
        let in_file = |e: gguf_format::Error| CliError::from(e.in_file(&self.file));
        let mut edit = Edit::of(&file);
        for (old, new) in &self.rename {
            edit.rename(old, new).map_err(in_file)?;
        }
        for (old, new) in &self.rename_tensor {
            edit.rename_tensor(old, new).map_err(in_file)?;
        }
        for key in &self.remove {
            edit.remove(key).map_err(in_file)?;
        }
        for name in &self.remove_tensor {
            edit.remove_tensor(name).map_err(in_file)?;
        }
        for Assignment { key, value } in self.set {
            edit.set(&key, value);
        }
        for (key, path) in &self.set_file {
            let text = std::fs::read(path).map_err(|e| CliError::Failed(format!("{path}: {e}")))?;
            edit.set(key, gguf_format::Value::string(text));
        }
        for ((name, path), donor) in self.replace_tensor.iter().zip(&donors) {
            if edit.tensors().iter().all(|t| t.spec.name != *name) {
                return Err(in_file(gguf_format::Error::MissingTensor { name: name.clone() }));
            }
            edit.replace_tensor_from(name, donor, name).map_err(|e| e.in_file(path))?;
        }
        if let Some(alignment) = self.alignment {
            edit.set_alignment(alignment)?;
        }
        if let Some(order) = self.byte_order {
            let order = match order {
                Order::Little => gguf_format::ByteOrder::Little,
                Order::Big => gguf_format::ByteOrder::Big,
            };
            edit.set_byte_order(order).map_err(in_file)?;
        }
        let bytes = edit.write(&self.out)?;
        let (keys, tensors) = (edit.metadata().len() as u64, edit.tensors().len() as u64);
        let out = self.out.display().to_string();
        match self.json {
            true => print_json(&json!({ "out": out, "bytes": bytes, "keys": keys, "tensors": tensors })),
            false => to_stdout(|to| {
                writeln!(to, "{out}: {bytes} bytes, {}, {}", count(keys, "key"), count(tensors, "tensor"))
            }),
        }
    }
}

fn parse_alignment(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|n: &u32| n.is_power_of_two()).ok_or_else(|| "a power of two is needed".into())
}
