//! The check whether a process of this host has ended. If it has, its partitions are free before it
//! has missed enough heartbeats. If the check can't tell, the process counts as running.

use std::{fs, path::Path, sync::OnceLock};

/// The id of this host: its boot, and the namespace of its process ids. Processes with the same id
/// see each other's process ids. `None` without `/proc`.
pub(crate) fn here() -> Option<&'static str> {
    static HERE: OnceLock<Option<String>> = OnceLock::new();
    let here = HERE.get_or_init(|| {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let numbers = fs::read_link("/proc/self/ns/pid").ok()?;
        Some(format!("{} {}", boot.trim(), numbers.display()))
    });
    here.as_deref()
}

/// True if the process has ended for certain. `host` is the id of the host where it ran. False if
/// another process may have its process id by now.
pub(crate) fn has_exited(host: Option<&str>, process: u32) -> bool {
    let is_here = host.is_some() && host == here();
    is_here && !Path::new(&format!("/proc/{process}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_this_host_without_an_entry_in_proc_has_ended() {
        let me = std::process::id();
        assert!(!has_exited(here(), me));
        assert!(!has_exited(None, u32::MAX), "nothing is known of it");
        assert!(!has_exited(Some("another host"), u32::MAX));
        assert_eq!(has_exited(here(), u32::MAX), here().is_some());
    }
}
