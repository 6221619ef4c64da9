//! How many threads to compute with.

use std::collections::BTreeSet;
use std::num::NonZero;

/// The physical cores that this process may use. Two threads of one core share its multipliers, so more threads than cores gain nothing here.
///
/// Read from `/proc/cpuinfo`; where that tells nothing, the processors the system offers.
pub(crate) fn physical_cores() -> usize {
    let available = std::thread::available_parallelism().map_or(1, NonZero::get);
    let cores = std::fs::read_to_string("/proc/cpuinfo").map_or(0, |text| count_cores(&text));
    if cores == 0 { available } else { cores.min(available) }
}

/// Distinct pairs of socket and core; 0 if the text names none.
fn count_cores(cpuinfo: &str) -> usize {
    let mut cores = BTreeSet::new();
    let mut socket = "";
    for line in cpuinfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key.trim() {
            "physical id" => socket = value.trim(),
            "core id" => {
                cores.insert((socket, value.trim()));
            }
            _ => {}
        }
    }
    cores.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_count_once() {
        let processor = |socket, core| format!("processor\t: 0\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n");
        let text: String = [(0, 0), (0, 1), (0, 0), (0, 1), (1, 0)].map(|(s, c)| processor(s, c)).concat();
        assert_eq!(count_cores(&text), 3);
        assert_eq!(count_cores("model name: x\n"), 0);
        assert!(physical_cores() >= 1);
    }
}
