//! NUMA nodes: cores and the memory near them.
//!
//! The law: where the system does not tell or does not allow, nothing happens. Memory is taken near the core that writes
//! it first, so a thread that stays on a node finds its data there.

use std::fs::read_to_string;

/// The cores of each node that this thread may run on; nodes without any are left out.
pub fn nodes() -> Vec<Vec<usize>> {
    let status = read_to_string("/proc/thread-self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let allowed = allowed.map(list).unwrap_or_default();
    let cores = |node: usize| read_to_string(format!("/sys/devices/system/node/node{node}/cpulist")).ok();
    let online = read_to_string("/sys/devices/system/node/online").unwrap_or_default();
    let nodes = list(&online).into_iter().filter_map(cores).map(|cores| list(&cores));
    let usable = |cores: Vec<usize>| cores.into_iter().filter(|core| allowed.contains(core)).collect::<Vec<_>>();
    nodes.map(usable).filter(|cores| !cores.is_empty()).collect()
}

/// `0-2,8` → 0, 1, 2, 8.
fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Keeps this thread, and those that it starts from now on, on these cores.
#[cfg(target_os = "linux")]
pub fn stay_on(cores: &[usize]) {
    extern "C" {
        fn sched_setaffinity(thread: i32, bytes: usize, mask: *const u64) -> i32;
    }
    let mut mask = vec![0u64; cores.iter().max().map_or(0, |last| last / 64 + 1)];
    cores.iter().for_each(|core| mask[core / 64] |= 1 << (core % 64));
    // SAFETY: the mask is as long as is said, and only read. 0 is the calling thread; a refusal is harmless.
    unsafe { sched_setaffinity(0, size_of_val(&mask[..]), mask.as_ptr()) };
}

#[cfg(not(target_os = "linux"))]
pub fn stay_on(_cores: &[usize]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        assert_eq!(list("0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!(list(" 5"), [5]);
        assert_eq!(list("\n"), []);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_stays_where_it_was_put() {
        let all: Vec<usize> = nodes().concat();
        let Some(&last) = all.last() else { return };
        std::thread::spawn(move || {
            stay_on(&[last]);
            assert_eq!(nodes().concat(), [last]);
            assert_eq!(std::thread::spawn(nodes).join().unwrap().concat(), [last]);
        })
        .join()
        .unwrap();
        assert_eq!(nodes().concat(), all);
    }
}
