//! Calibration: one pass over a text gathers [`InputStats`] for every linear layer.
//!
//! The statistics serve every method: their diagonal is llama.cpp's importance matrix, the Gram matrix gives GPTQ its Hessian and AWQ
//! its loss. They are stored in a file of our own ([`StatsFile`]), or as llama.cpp's importance matrix ([`to_imatrix`]);
//! [`load_importance`] reads either.

mod collect;
mod importance;
mod samples;
mod sites;
mod stats_file;

pub use collect::{CalibrationOptions, CalibrationProgress, CalibrationSummary, calibrate_to_file, collect_stats};
pub(crate) use importance::load_importance_and_matrix;
pub use importance::{load_importance, to_imatrix};
pub use quant_core::input_stats::{Detail, InputStats};
pub use samples::{CalibrationSet, Placement};
pub use sites::{SiteInfo, linear_sites};
pub use stats_file::{StatsFile, StatsFileWriter};
