//! The scales of some inputs in a safetensors file, one F32 vector each, named as statistics are (`blk.0.attn_input`).

use super::Folds;
use crate::calibrate::linear_sites;
use crate::safetensors_io::{Dtype, SafetensorsReader, SafetensorsWriter, TensorSpec};
use crate::{Error, ModelConfig, Result};
use std::path::Path;

impl Folds {
    /// Writes the scales; the file appears whole.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, config: &ModelConfig, path: &Path) -> Result<()> {
        let sites = linear_sites(config, false);
        let present = || sites.iter().filter_map(|info| Some((info, self.scales(info.site)?)));
        let specs: Vec<TensorSpec> =
            present().map(|(info, s)| TensorSpec::new(info.key(), Dtype::F32, vec![s.len() as u64])).collect();
        let mut writer = SafetensorsWriter::create(path, &specs, &[])?;
        for (_, scales) in present() {
            writer.write_f32(scales)?;
        }
        writer.finish().map(|_| ())
    }

    /// Reads what [`Folds::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for a file of another form; what [`Folds::insert`] refuses.
    pub fn load(config: &ModelConfig, path: &Path) -> Result<Self> {
        let mut reader = SafetensorsReader::open(path)?;
        let sites = linear_sites(config, false);
        let mut folds = Self::new();
        let names: Vec<String> = reader.tensors().keys().cloned().collect();
        for name in names {
            let Some(info) = sites.iter().find(|info| info.key() == name) else {
                return Err(Error::malformed(
                    path,
                    format!("tensor `{name}`"),
                    "the input of a linear layer",
                    "another name",
                ));
            };
            reader.need(&name, Dtype::F32)?;
            let scales = reader.read_f32(&name, 0, info.columns as u64)?;
            folds.insert(config, info.site, scales)?;
        }
        Ok(folds)
    }
}
