// SPDX-License-Identifier: MIT OR Apache-2.0
//! The attack that a ring is made to withstand, in this process: no root, no module.
//!
//! ```sh
//! cargo run --release -p sq-conformance --example attack -- --help
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sq_conformance::checkers::attack::Count;
use sq_conformance::checkers::victim::{Handler, Victim};

/// Break into two handlers that check an entry and then look at it again in shared memory, and fail to break into a ring
///
/// A queue entry lies in memory that a program shares with a kernel side that does not trust it. Here both are threads of one process.
/// One thread has the entry taken, again and again. The other turns it, without pause, from a no-op, which is allowed, into a command,
/// which is not, and back.
///
/// The first handler checks every field of the entry where it lies, and then reads there what to do. Mostly it sees a no-op twice, or
/// refuses a command. But now and then it checks a no-op, and what it reads a moment later is a command: the attacker has broken in
/// (a double fetch, or TOCTOU: time of check, time of use).
///
/// The second is the ring of this project, with a bug for this run: it checks its copy of the entry, and then looks at the entry again.
/// That is as bad.
///
/// The third is the ring as it is, the same code as in the kernel module. It copies the entry once, checks the copy, and its driver
/// sees nothing but the copy. So it does not matter how often the attacker tries.
///
/// How often the first two are broken into depends on the machine, and on what else runs there: once in some thousands or millions of
/// attempts. It takes two processors. Exit code 0 if both were broken into and the ring was not, else 1.
#[derive(Clone, Copy, Debug, Parser)]
#[command(name = "attack", max_term_width = 100)]
struct Args {
    /// How long each handler is attacked
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Attack each handler so often, however long it takes
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    attempts: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let counts = HANDLERS.map(|handler| attacked(handler, args));
    print!("{}", table(&counts));
    match verdict(&counts) {
        Ok(meaning) => {
            println!("\n{meaning}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("\n{why}");
            ExitCode::FAILURE
        }
    }
}

/// Two with the mistake, and the ring.
const HANDLERS: [Handler; 3] = [Handler::InPlace, Handler::SecondLook, Handler::Ours];

/// Attempts between two looks at the clock, which would take longer than they do.
const STRIDE: u64 = 1024;

fn attacked(handler: Handler, args: Args) -> Count {
    let bar = bar(handler, args);
    let start = Instant::now();
    let more = |count: &Count| {
        let attempts = count.attempts();
        if !attempts.is_multiple_of(STRIDE) {
            return args.attempts.is_none_or(|most| attempts < most);
        }
        let elapsed = start.elapsed();
        bar.set_position(args.attempts.map_or(elapsed.as_millis().try_into().unwrap_or(u64::MAX), |_| attempts));
        bar.set_message(format!("{} attempts, broken into {}", HumanCount(attempts), times(count.won)));
        args.attempts.map_or(elapsed < Duration::from_secs(args.seconds), |most| attempts < most)
    };
    let count = Victim::new(handler).attacked(more);
    bar.finish_and_clear();
    count
}

fn name(handler: Handler) -> &'static str {
    match handler {
        Handler::InPlace => "checks the shared entry, then uses it",
        Handler::SecondLook => "a ring of sq that looks again",
        Handler::Ours => "a ring of sq",
    }
}

/// How far it is, on standard error, if that is a terminal.
fn bar(handler: Handler, args: Args) -> ProgressBar {
    let length = args.attempts.unwrap_or(args.seconds * 1000);
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(10));
    let style = ProgressStyle::with_template("{prefix:38} [{bar:24}] {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.with_prefix(name(handler))
}

/// How often, in words.
fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{} times", HumanCount(count)) }
}

fn table(counts: &[Count; 3]) -> String {
    let mut table = format!("{:38} {:>15} {:>12} {:>15}\n", "handler", "attempts", "broken into", "once in");
    for (handler, count) in HANDLERS.into_iter().zip(counts) {
        let once_in = count.attempts().checked_div(count.won).map_or("never".to_owned(), |n| HumanCount(n).to_string());
        let [attempts, won] = [count.attempts(), count.won].map(|n| HumanCount(n).to_string());
        table += &format!("{:38} {attempts:>15} {won:>12} {once_in:>15}\n", name(handler));
    }
    table
}

/// What it means, or why it shows nothing.
fn verdict(counts: &[Count; 3]) -> Result<&'static str, String> {
    let [naive, second, ours] = counts;
    if ours.won > 0 {
        return Err(format!(
            "The ring was broken into {}: that must not be. It is a hole; SECURITY.md says how to report it.",
            times(ours.won)
        ));
    }
    if naive.won == 0 || second.won == 0 || !ours.saw_both() {
        let attempts = counts.iter().map(Count::attempts).min().unwrap_or(0);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        return Err(format!(
            "Too few attempts: in {attempts} the attacker has not come in between, so this shows nothing. Give more, by \
             --seconds or --attempts, on a machine with two processors that have nothing else to do (here: {processors})."
        ));
    }
    Ok(
        "The first handler checked a no-op, and did a command that it refuses. Nothing was wrong with its checks: the entry changed between the \
        check and the use. So did the second, though it has a copy: it did not use it.\nThe ring was given the same entries. It checks a copy that nobody else can write, and does what the copy says.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Count = Count { accepted: 5, refused: 5, won: 0 };

    const WON: Count = Count { won: 1, ..BOTH };

    #[test]
    fn only_handlers_that_were_broken_into_and_a_ring_that_was_not_show_anything() {
        assert!(verdict(&[WON, WON, BOTH]).is_ok());
        assert!(verdict(&[WON; 3]).unwrap_err().contains("broken into once:"));
        assert!(verdict(&[WON, WON, Count { won: 2, ..BOTH }]).unwrap_err().contains("broken into 2 times:"));
        assert!(verdict(&[BOTH, WON, BOTH]).unwrap_err().starts_with("Too few attempts: in 10 "));
        assert!(verdict(&[WON, BOTH, BOTH]).unwrap_err().starts_with("Too few attempts: in 10 "));
        assert!(verdict(&[WON, WON, Count { accepted: 9, ..Count::default() }]).is_err(), "it was not attacked");
    }

    #[test]
    fn the_table_says_how_often() {
        let lines = table(&[Count { accepted: 2000, refused: 498, won: 2 }, WON, BOTH]);
        let lines: Vec<Vec<&str>> = lines.lines().map(|line| line.split_whitespace().rev().take(3).collect()).collect();
        assert_eq!(lines[1..], [["1,250", "2", "2,500"], ["11", "1", "11"], ["never", "0", "10"]]);
    }

    /// As a user runs it, with as many attempts as this machine wants.
    #[test]
    fn snap2_the_attack_shows_what_it_says() {
        let with = |attempts| {
            let args = Args { seconds: 5, attempts: Some(attempts) };
            let counts = HANDLERS.map(|handler| attacked(handler, args));
            assert!(counts.iter().all(|count| count.attempts() == attempts), "{counts:?}");
            verdict(&counts)
        };
        let shown = (16..28).map(|power| with(1 << power)).find(|shown| {
            let too_few = shown.as_ref().is_err_and(|why| why.starts_with("Too few attempts"));
            !too_few
        });
        println!("{}", shown.expect("the attacker wins once in 100 million attempts").expect("the ring holds"));
    }
}
