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
    // They look no further: lockdep (which "Disabling" is about), kmemleak, debugobjects.
    "turning off the locking correctness validator",
    "lockdep is turned off",
    "Disabling lock debugging",
    "Cannot allocate a kmemleak_object",
    "leak detector disabled",
    "ODEBUG disabled",
    "ODEBUG: out of memory",
];

/// Of these, what a busy host does as well as a fault.
const STALLS: &[&str] = &["INFO: rcu", "rcu: INFO", "self-detected stall", "detected stalls", "soft lockup"];

/// How much of a report is shown, after the line that gives it away.
const REPORT_LINES: usize = 60;

/// Around a report by a sanitizer.
const RULE: &str = "==================================================================";
/// In KCSAN's first line.
const RACE: &str = "KCSAN: data-race in ";

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
        if is_complaint(line) && known.insert(text(line)) {
            until = number + REPORT_LINES;
        }
        if number < until {
            shown.push((*line).to_owned());
        }
    }
    shown
}

/// A line without its time.
fn text<'a>(line: &'a &str) -> &'a str {
    line.split_once("] ").map_or(*line, |(_, text)| text)
}

/// The first lines of the reports in `log` that are no [`complaints`], once.
pub(crate) fn races_of_the_kernel(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let foreign = foreign_races(&lines);
    let heads = lines.iter().zip(foreign).filter_map(|(line, foreign)| line.split_once(RACE).filter(|_| foreign));
    let mut heads: Vec<String> = heads.map(|(_, functions)| functions.to_owned()).collect();
    heads.sort();
    heads.dedup();
    heads
}

/// The lines that belong to KCSAN's reports of races of the kernel with itself, which has some. Another CPU may complain of
/// something else meanwhile: from there on none of the report's are told apart from that one's.
fn foreign_races(lines: &[&str]) -> Vec<bool> {
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
        if report.iter().any(|line| line.contains(RACE)) && !is_ours(report) {
            let other = report.iter().position(|line| is_complaint(line) && !line.contains(RACE));
            foreign[first..other.map_or(number + 1, |at| first + at)].fill(true);
        }
    }
    foreign
}

/// Whether one of a report's two accesses is made by a function of ours or by one that it called, other than through a border behind which
/// the memory is the kernel's.
fn is_ours(report: &[&str]) -> bool {
    let (mut stack, mut interrupt) = (false, false);
    report.iter().any(|line| {
        if let Some((_, by)) = line.split_once(" bytes by ") {
            (stack, interrupt) = (true, by.starts_with("interrupt"));
        } else if line.contains("Reported by") || is_border(text(line), interrupt) {
            // What follows, down to the next stack, only called, was interrupted, or happened to run there.
            stack = false;
        }
        stack && names_ours(line)
    })
}

/// Whether a stack's frame is where the kernel was entered, from our functions, with what is its own: a file's operation, which we call as
/// any process does, or an interrupt.
fn is_border(frame: &str, interrupt: bool) -> bool {
    let name = frame.trim_start().split('+').next().unwrap_or_default();
    let file = name.starts_with("vfs_") || name.ends_with("_file_read_iter") || name.ends_with("_file_write_iter");
    file || (interrupt && name.starts_with("asm_"))
}

/// Whether a function of one of our modules is in the line: `sq_wait+0x10/0x20 [sq]`.
fn names_ours(line: &str) -> bool {
    line.match_indices(" [sq").any(|(at, _)| {
        let rest = line[at + 2..].trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        rest.starts_with(']')
    })
}

/// Whether `complaints` are about more than a processor that did not get on.
pub(crate) fn speak_of_a_fault(complaints: &[String]) -> bool {
    let stalls = |line: &str| STALLS.iter().any(|stall| line.contains(stall));
    // What follows a stall.
    let said = |line: &str| is_complaint(line) && !line.contains("Call Trace");
    complaints.iter().any(|line| said(line) && !stalls(line))
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

    #[test]
    fn a_detector_that_gives_up_is_a_fault() {
        for line in [
            "turning off the locking correctness validator.",
            "INFO: lockdep is turned off.",
            "Disabling lock debugging due to kernel taint",
            "kmemleak: Cannot allocate a kmemleak_object structure",
            "kmemleak: Kernel memory leak detector disabled",
            "ODEBUG: Out of memory. ODEBUG disabled",
            "ODEBUG: out of memory.",
        ] {
            assert_eq!(complaints(&format!("[    9.1] {line}\n")).len(), 1, "{line}");
        }
        let log = "[    0.1] kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)\n\
            [    0.2] ODEBUG: selftest passed\n[    0.3] audit: initializing netlink subsys (disabled)\n";
        assert!(complaints(log).is_empty());
    }

    /// A report by KCSAN of a race of `functions`, the second of which was called by `caller`.
    fn race(functions: [&str; 2], caller: &str) -> String {
        let rule = "=".repeat(66);
        let [one, other] = functions;
        format!(
            "[ 1.0] {rule}\n[ 1.0] BUG: KCSAN: data-race in {one} / {other}\n[ 1.0] \n\
             [ 1.0] write to 0x1 of 4 bytes by interrupt on cpu 1:\n[ 1.0]  {one}+0x1/0x2\n[ 1.0]  handle_irq+0x1/0x2\n[ 1.0] \n\
             [ 1.0] read to 0x1 of 4 bytes by task 7 on cpu 0:\n[ 1.0]  {other}+0x1/0x2\n[ 1.0]  {caller}\n[ 1.0] \n\
             [ 1.0] Reported by Kernel Concurrency Sanitizer on:\n[ 1.0] CPU: 0 PID: 7 Comm: life Tainted: [O]=OOT_MODULE\n[ 1.0] {rule}\n"
        )
    }

    #[test]
    fn a_race_of_the_kernel_with_itself_is_not_ours() {
        let foreign = race(["tick_sched_do_timer", "tick_nohz_stop"], "do_idle+0x1/0x2");
        assert!(complaints(&foreign).is_empty());
        assert_eq!(super::races_of_the_kernel(&foreign), ["tick_sched_do_timer / tick_nohz_stop"]);
        let both = complaints(&(foreign + &race(["handler", "drain [sq]"], "worker+0x1/0x2 [sq]")));
        assert!(both.iter().any(|line| line.contains("data-race in handler / drain [sq]")), "{both:?}");
        assert!(!both.iter().any(|line| line.contains("tick_nohz_stop")), "{both:?}");
    }

    #[test]
    fn what_another_cpu_says_in_the_middle_is_not_lost() {
        let foreign = race(["tick_sched_do_timer", "tick_nohz_stop"], "do_idle+0x1/0x2");
        for other in ["WARNING: CPU: 1 PID: 9 at x.c:1 y+0x1/0x2", "Oops: general protection fault"] {
            let both = foreign.replace("[ 1.0] read to", &format!("[ 1.0] {other}\n[ 1.0] read to"));
            let found = complaints(&both);
            assert!(found.first().is_some_and(|line| line.contains(other)), "{found:?}");
            assert_eq!(super::races_of_the_kernel(&both), ["tick_sched_do_timer / tick_nohz_stop"]);
        }
    }

    #[test]
    fn what_a_files_operation_does_is_the_kernels() {
        let ours = "\n[ 1.0]  sq_vfs_try+0x766/0x8e0 [sq_file]";
        for border in ["vfs_fsync_range+0x1/0x2", "ext4_file_write_iter+0x1/0x2", "vfs_iocb_iter_read+0x1/0x2"] {
            let functions = ["xas_clear_mark", "xas_find_marked"];
            assert!(complaints(&race(functions, &format!("{border}{ours}"))).is_empty(), "{border}");
            // It called us back.
            let back = format!("sq_vfs_done+0x1/0x2 [sq_file]\n[ 1.0]  {border}");
            assert!(!complaints(&race(functions, &back)).is_empty(), "{border}");
        }
        assert!(
            !complaints(&race(["xas_clear_mark", "memcpy_orig"], &format!("ext4_file_open+0x1/0x2{ours}"))).is_empty()
        );
    }

    #[test]
    fn what_an_interrupt_interrupted_has_no_part_in_its_race() {
        let entry =
            "asm_sysvec_apic_timer_interrupt+0x1/0x2\n[ 1.0]  ktime_get+0x1/0x2\n[ 1.0]  sq_now_ns+0x1/0x2 [sq]";
        let report = |first: &str, last: &str| {
            race(["__hrtimer_run_queues", "hrtimer_active"], last)
                .replace("by task 7 on cpu 0", "by interrupt on cpu 0")
                .replace("handle_irq+0x1/0x2", first)
        };
        assert!(complaints(&report(entry, entry)).is_empty());
        let queue =
            "worker_thread+0x1/0x2\n[ 1.0] \n[ 1.0] Reported by Kernel\n[ 1.0] Workqueue: sq-0 sq_work_runs [sq]";
        assert!(complaints(&race(["process_one_work", "process_one_work"], queue)).is_empty(), "nor who runs there");
        // Our timer, in an interrupt.
        let ours = format!("sq_alarm_rings+0x1/0x2 [sq]\n[ 1.0]  {entry}");
        assert!(!complaints(&report(&ours, entry)).is_empty());
        assert!(!complaints(&report(entry, &ours)).is_empty());
        // A task that took an exception on its way did both.
        assert!(!complaints(&race(["memcpy_orig", "copy_to_user"], entry)).is_empty());
    }

    /// Two functions of the kernel's: on memory of ours perhaps, since we called.
    #[test]
    fn a_race_below_our_functions_is_ours() {
        for caller in ["sq_wait+0x10/0x20 [sq]", "_RNvXs_4ringNtB1+0x1/0x2 [sq_dma_c]", "sq_read+0x1/0x2 [sq_file]"] {
            let found = complaints(&race(["memcpy_orig", "copy_to_user"], caller));
            assert!(found.iter().any(|line| line.contains("memcpy_orig / copy_to_user")), "{caller}: {found:?}");
        }
        for caller in ["fs_read+0x1/0x2 [ext4]", "sq_wait+0x1/0x2"] {
            assert!(complaints(&race(["memcpy_orig", "copy_to_user"], caller)).is_empty(), "{caller}");
        }
    }
}
