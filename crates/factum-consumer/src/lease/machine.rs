//! Whether a process of this machine is gone: then nobody need wait until its silence is long
//! enough. Where that can't be told, it is not said.

use std::{fs, path::Path, sync::OnceLock};

/// What all processes share that see one another's numbers: this start of the machine, and the
/// namespace of numbers on it. None where there is no `/proc`.
pub(super) fn here() -> Option<&'static str> {
    static HERE: OnceLock<Option<String>> = OnceLock::new();
    let here = HERE.get_or_init(|| {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let numbers = fs::read_link("/proc/self/ns/pid").ok()?;
        Some(format!("{} {}", boot.trim(), numbers.display()))
    });
    here.as_deref()
}

/// Whether a process with this number, which ran where `machine` says, is surely gone. Another one
/// may have its number by now: then it is not said.
pub(super) fn is_gone(machine: Option<&str>, process: u32) -> bool {
    let is_here = machine.is_some() && machine == here();
    is_here && !Path::new(&format!("/proc/{process}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_when_it_is_of_this_machine_and_not_there() {
        let me = std::process::id();
        assert!(!is_gone(here(), me));
        assert!(!is_gone(None, u32::MAX), "nothing is known of it");
        assert!(!is_gone(Some("another machine"), u32::MAX));
        assert_eq!(is_gone(here(), u32::MAX), here().is_some());
    }
}
