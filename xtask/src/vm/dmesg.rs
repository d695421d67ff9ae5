// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the guest kernel's log: which lines mean that something is wrong.

/// Words that begin a report. They must stand alone, so that "DEBUG" is no bug.
const WORDS: &[&str] = &["BUG", "WARNING", "Oops", "KASAN", "KCSAN", "UBSAN", "KFENCE"];

/// Longer phrases: lockdep, RCU, the hung-task and soft-lockup detectors, and what follows a report.
const PHRASES: &[&str] = &[
    "possible recursive locking",
    "inconsistent lock state",
    "possible circular locking",
    "possible irq lock inversion",
    "possible deadlock",
    "suspicious RCU usage",
    "INFO: possible",
    "INFO: task",
    "INFO: rcu",
    "rcu: INFO",
    "self-detected stall",
    "detected stalls",
    "soft lockup",
    "scheduling while atomic",
    "sleeping function called",
    "general protection fault",
    "unable to handle",
    "refcount_t:",
    "Call Trace",
    "unreferenced object",
    "Kernel panic",
    "held lock freed",
    "bad page",
    "Bad page",
];

/// The lines of `log` that speak of a fault; out-of-tree taint lines do not.
pub(crate) fn complaints(log: &str) -> Vec<String> {
    log.lines().filter(|line| is_complaint(line)).map(str::to_owned).collect()
}

fn is_complaint(line: &str) -> bool {
    PHRASES.iter().any(|p| line.contains(p)) || WORDS.iter().any(|w| has_word(line, w))
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let alone = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
        alone(line[..at].chars().next_back()) && alone(line[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::complaints;

    #[test]
    fn faults_are_found_and_taint_is_not() {
        let log = "[    1.0] sq: loading out-of-tree module taints kernel.\n\
            [    1.0] sq: module verification failed: signature and/or required key missing - tainting kernel\n\
            [    1.1] DEBUG_PAGEALLOC on\n\
            [    1.2] WARNING: CPU: 0 PID: 1 at main.c:3\n\
            [    1.3] BUG: KASAN: use-after-free in sq\n\
            [    1.4] rcu: INFO: rcu_preempt self-detected stall on CPU\n";
        assert_eq!(complaints(log).len(), 3);
    }
}
