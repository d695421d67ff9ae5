// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a loaded module must survive, and what only processes can show: `life GROUP [PART OF A CHECK'S NAME]`, in a guest.
//!
//! `xtask vm test` runs each group as a job of its own and reads dmesg after it. One line a check; exit code 1 if one fails, 77
//! if the group cannot be run. `SQ_LONG=1` makes the counts those of `cargo xtask nightly`, `SQ_PART=1` a fifth of the usual ones.

mod accounts;
mod attack;
mod fail_nth;
mod group;
mod hostile;
mod inject;
mod kill;
mod memory;
mod page;
mod pass;
mod planted;
mod poll;
mod proc;
mod raw;
mod share;
mod stall;
mod storm;
mod syscalls;
mod unload;
mod users;

use std::process::ExitCode;

/// The group cannot be run here.
const SKIPPED: u8 = 77;

/// Why a check failed.
#[derive(Debug)]
pub(crate) struct Why(String);

pub(crate) type Outcome = Result<(), Why>;

impl From<String> for Why {
    fn from(why: String) -> Self {
        Self(why)
    }
}

/// An error number, and where it was too much.
impl From<i32> for Why {
    #[track_caller]
    fn from(errno: i32) -> Self {
        Self(format!("{}: error {errno}", std::panic::Location::caller()))
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An error of the system, in `what`.
pub(crate) fn os(what: &'static str) -> impl Fn(std::io::Error) -> Why {
    move |why| Why::from(format!("{what}: {why}"))
}

/// What a thread returned.
pub(crate) fn joined<T>(thread: std::thread::JoinHandle<T>) -> T {
    thread.join().expect("threads here do not panic")
}
pub(crate) type Check = (&'static str, fn() -> Outcome);

/// Fails the check unless both are equal.
macro_rules! want {
    ($left:expr, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err($crate::Why::from(format!("{}:{}: {left:?}, not {right:?}", file!(), line!())));
        }
    }};
}
pub(crate) use want;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let group = args.get(1).map_or("", String::as_str);
    let checks: &[Check] = match group {
        "storm" => storm::CHECKS,
        "kill" => kill::CHECKS,
        "share" => share::CHECKS,
        "poll" => poll::CHECKS,
        "hostile" => hostile::CHECKS,
        "stall" => stall::CHECKS,
        "users" => users::CHECKS,
        "memory" => memory::CHECKS,
        "accounts" => accounts::CHECKS,
        "attack" => attack::CHECKS,
        "planted" => planted::CHECKS,
        "fail-nth" => match fail_nth::prepare() {
            Ok(true) => fail_nth::CHECKS,
            Ok(false) => {
                println!("this kernel has no fault injection");
                return ExitCode::from(SKIPPED);
            }
            Err(why) => {
                println!("FAILED  {why}");
                return ExitCode::FAILURE;
            }
        },
        "syscalls" => return syscalls::main(&args[2..]),
        "unload" => return unload::main(&args[2..]),
        // What a child of the checks becomes by exec.
        "stranger" => return share::stranger(args.get(2).map_or("", String::as_str)),
        _ => {
            eprintln!(
                "usage: life attack|storm|kill|share|poll|hostile|stall|users|memory|accounts|fail-nth|planted [PART OF A CHECK'S NAME]|syscalls [SEED [PROGRAMS]]|unload MODULE.."
            );
            return ExitCode::from(2);
        }
    };
    let part = args.get(2).map_or("", String::as_str);
    if !checks.iter().any(|(name, _)| name.contains(part)) {
        eprintln!("no check of {group} has {part:?} in its name");
        return ExitCode::from(2);
    }
    let mut failed = 0;
    for (name, check) in checks.iter().filter(|(name, _)| name.contains(part)) {
        let start = std::time::Instant::now();
        let result = check().and_then(|()| proc::all_given_back());
        let took = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("ok      {name} ({took:.1} s)"),
            Err(why) => {
                failed += 1;
                println!("FAILED  {name} ({took:.1} s): {why}");
            }
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

/// How often: more for the nightly run, less where each time takes long.
pub(crate) fn times(short: u32, many: u32) -> u32 {
    if long() {
        many
    } else if part() {
        short.div_ceil(5)
    } else {
        short
    }
}

/// Where each time takes long.
pub(crate) fn part() -> bool {
    std::env::var_os("SQ_PART").is_some()
}

/// The nightly run.
pub(crate) fn long() -> bool {
    std::env::var_os("SQ_LONG").is_some()
}

/// Numbers that look random and are the same in every run (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }
}
