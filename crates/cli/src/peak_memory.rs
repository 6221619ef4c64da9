//! Peak memory of this process.

/// The largest resident set so far in bytes, file pages of memory maps included: `VmHWM` of `/proc/self/status`. `None` on systems without it.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn is_there_on_linux() {
        assert!(super::peak_rss_bytes().is_some_and(|b| b > 1 << 20));
    }
}
