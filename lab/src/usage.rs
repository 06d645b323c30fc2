//! What a process takes of the machine, as the kernel counts it (proc(5)).

use std::fs;
use std::time::Duration;

/// The kernel counts in hundredths of a second wherever Linux runs (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Processor time of all its threads, in the kernel and out of it; `None` once it is gone.
pub fn cpu(pid: u32) -> Option<Duration> {
    let stat = stat(pid)?;
    // Fields 14 and 15; the text begins at field 3.
    let ticks: Vec<u32> = stat.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    let [user, system] = *ticks.as_slice() else { return None };
    Some(TICK * (user + system))
}

/// Resident memory now (`VmRSS`).
pub fn rss_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The most resident memory it ever had (`VmHWM`).
pub fn peak_rss_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

/// The most memory that it may write to (`RLIMIT_DATA`); `None` if that is unlimited.
pub fn data_max(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max data size"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The kernel's line on a process behind the program's name, which is in parentheses and may hold
/// some: it begins with the state and the parent.
pub(crate) fn stat(pid: u32) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    Some(String::from_utf8_lossy(stat.get(end_of_name + 1..)?).into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_is_seen_in_the_processor_time() {
        let pid = std::process::id();
        let (before, begun) = (cpu(pid).unwrap(), Instant::now());
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(500) && cpu(pid).unwrap() == before {
            sum = (0..10_000).fold(sum, u64::wrapping_add);
        }
        assert!(cpu(pid).unwrap() > before, "{sum}");
        assert_eq!(cpu(u32::MAX), None);
    }

    #[test]
    fn memory_is_seen_with_its_peak() {
        // A process whose memory nobody else changes meanwhile.
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let now = rss_bytes(child.id());
        let peak = peak_rss_bytes(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(now > Some(0) && peak >= now, "{now:?} of {peak:?}");
        assert_eq!(rss_bytes(u32::MAX), None);
    }
}
