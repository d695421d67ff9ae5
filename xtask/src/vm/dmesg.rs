// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the guest kernel's log: which lines mean that something is wrong.

use std::collections::HashSet;

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

/// How much of a report is shown, after the line that gives it away.
const REPORT_LINES: usize = 60;

/// What in `log` speaks of a fault: the lines that do, with what follows them, once. Out-of-tree taint lines do not.
pub(crate) fn complaints(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let foreign = foreign_races(&lines);
    let mut shown = Vec::new();
    let mut until = 0;
    let mut known = HashSet::new();
    for (number, line) in lines.iter().enumerate() {
        if foreign[number] {
            continue;
        }
        // The same again says nothing new. In front is the time.
        if is_complaint(line) && known.insert(line.split_once("] ").map_or(*line, |(_, text)| text)) {
            until = number + REPORT_LINES;
        }
        if number < until {
            shown.push((*line).to_owned());
        }
    }
    shown
}

/// The lines that belong to KCSAN's reports of races between two functions of the kernel itself, which has some, whoever called them.
fn foreign_races(lines: &[&str]) -> Vec<bool> {
    const RULE: &str = "==================================================================";
    let mut foreign = vec![false; lines.len()];
    let mut begin = None;
    for (number, line) in lines.iter().enumerate() {
        if !line.ends_with(RULE) {
            continue;
        }
        let Some(first) = begin.take() else {
            begin = Some(number);
            continue;
        };
        let report = &lines[first..=number];
        // "BUG: KCSAN: data-race in A [MODULE] / B": the functions of the accesses.
        let functions = report.iter().find_map(|line| line.split_once("KCSAN: data-race in "));
        if functions.is_some_and(|(_, functions)| !functions.contains('[')) {
            foreign[first..=number].fill(true);
        }
    }
    foreign
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
        assert!(complaints(&log[..log.find("[    1.2]").unwrap()]).is_empty());
    }

    /// Two reports by KCSAN, the first of them the kernel's own affair, though a module called.
    #[test]
    fn races_of_the_kernel_itself_are_not_ours() {
        let rule = "=".repeat(66);
        let report = |function: &str| {
            format!(
                "[ 1.0] {rule}\n[ 1.0] BUG: KCSAN: data-race in {function} / b\n[ 1.0] read to 0x1 of 4 bytes by task 7 on cpu 0:\n\
                 [ 1.0]  {function}\n[ 1.0]  sq_wait+0x10/0x20 [sq]\n[ 1.0] Reported by Kernel Concurrency Sanitizer on:\n[ 1.0] {rule}\n"
            )
        };
        assert!(complaints(&report("hrtimer_wakeup")).is_empty());
        let both = complaints(&(report("hrtimer_wakeup") + &report("drain [sq]")));
        assert!(both.iter().any(|line| line.contains("data-race in drain [sq]")), "{both:?}");
        assert!(!both.iter().any(|line| line.contains("hrtimer_wakeup")), "{both:?}");
    }
}
