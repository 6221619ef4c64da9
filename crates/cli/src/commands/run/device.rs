//! Where a model runs.

use crate::error::{CliError, CliResult};
use quant_runtime::Device;

/// `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DeviceKind {
    /// The processor.
    Cpu,
    /// The first NVIDIA GPU; needs a build with the feature `cuda`.
    Cuda,
    /// The GPU of a Mac; needs a build with the feature `metal`.
    Metal,
}

impl DeviceKind {
    pub(crate) fn open(self) -> CliResult<Device> {
        let (name, built) = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Cuda => ("cuda", cfg!(feature = "cuda")),
            Self::Metal => ("metal", cfg!(feature = "metal")),
        };
        if !built {
            return Err(CliError::Usage(format!(
                "--device {name}: this program was built without it; build with --features {name}"
            )));
        }
        let device = if self == Self::Cuda { Device::new_cuda(0) } else { Device::new_metal(0) };
        device.map_err(|e| CliError::Failed(format!("--device {name}: {e}")))
    }
}
