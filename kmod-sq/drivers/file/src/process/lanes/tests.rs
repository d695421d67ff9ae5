// SPDX-License-Identifier: MIT OR Apache-2.0
use std::time::{Duration, Instant};
use std::vec::Vec;

use super::{Key, Lanes, Limits};

const fn file(n: u64) -> Key {
    ((0, n), false)
}

fn lanes(threads: usize, per_file: usize, reserve: usize) -> Lanes<u32> {
    Lanes::new(Limits { threads, per_file, in_turn: 1, reserve, idle: Duration::ZERO })
}

fn take_all(lanes: &mut Lanes<u32>) -> Vec<u32> {
    std::iter::from_fn(|| lanes.next().map(|(_, job)| job)).collect()
}

#[test]
fn files_take_turns_and_stay_below_their_cap() {
    let mut lanes = lanes(64, 2, 0);
    for job in 0..4 {
        lanes.push(file(1), u64::from(job), job);
    }
    lanes.push(file(2), 10, 10);
    lanes.push(file(2), 11, 11);
    assert_eq!(take_all(&mut lanes), [0, 10, 1, 11]);
    lanes.finished(file(2));
    assert!(!lanes.has_next(), "file 1 is at its cap, file 2 has nothing left");
    lanes.finished(file(1));
    assert_eq!(take_all(&mut lanes), [2]);
    lanes.finished(file(1));
    assert_eq!(take_all(&mut lanes), [3]);
}

#[test]
fn the_reserve_is_for_files_that_have_nothing_running() {
    let mut lanes = lanes(4, 4, 2);
    for job in 0..4 {
        lanes.push(file(1), u64::from(job), job);
    }
    assert_eq!(take_all(&mut lanes), [0, 1], "a file does not get the reserve");
    lanes.push(file(2), 20, 20);
    lanes.push(file(2), 21, 21);
    lanes.push(file(3), 30, 30);
    lanes.push(file(4), 40, 40);
    assert_eq!(take_all(&mut lanes), [20, 30], "one each, as far as there are threads");
    lanes.finished(file(1));
    assert_eq!(take_all(&mut lanes), [40]);
    lanes.finished(file(1));
    assert_eq!(take_all(&mut lanes), [2], "3 of 4 run, but file 1 has none");
}

#[test]
fn removed_jobs_are_gone_and_leave_no_trace() {
    let mut lanes = lanes(64, 1, 0);
    lanes.push(file(1), 1, 1);
    lanes.push(file(1), 2, 2);
    lanes.push(file(2), 3, 3);
    assert_eq!(lanes.remove(9), None);
    assert_eq!(lanes.remove(1), Some(1));
    assert_eq!(lanes.remove(3), Some(3));
    assert_eq!(take_all(&mut lanes), [2]);
    lanes.push(file(1), 4, 4);
    assert_eq!(lanes.remove(4), Some(4), "waiting behind a running one");
    lanes.finished(file(1));
    assert!(lanes.lanes.is_empty() && lanes.ready.is_empty() && lanes.places.is_empty() && lanes.running == 0);
}

#[test]
fn clearing_leaves_what_runs() {
    let mut lanes = lanes(64, 1, 0);
    for job in 0..3 {
        lanes.push(file(1), u64::from(job), job);
        lanes.push(file(2), u64::from(job), job);
    }
    assert_eq!(take_all(&mut lanes), [0, 0]);
    assert_eq!(lanes.clear().len(), 4);
    lanes.finished(file(1));
    lanes.finished(file(2));
    assert!(lanes.lanes.is_empty() && !lanes.has_next());
}

/// As a cancel of all requests does it, under the lock: on one file, and on as many as there are jobs.
#[test]
fn removing_many_is_not_quadratic() {
    const JOBS: u32 = 1 << 16;
    for files in [1, 2, JOBS] {
        let mut lanes = lanes(64, 8, 16);
        for job in 0..JOBS {
            lanes.push(file(u64::from(job % files)), u64::from(job), job);
        }
        let start = Instant::now();
        for job in (0..JOBS).rev().step_by(2).chain((0..JOBS).step_by(2)) {
            assert_eq!(lanes.remove(u64::from(job)), Some(job));
        }
        // 0.3 s without optimization, and 20 s when each one is searched for.
        assert!(start.elapsed() < Duration::from_secs(5), "{JOBS} jobs of {files} files took {:?}", start.elapsed());
        assert!(lanes.lanes.is_empty() && lanes.ready.is_empty() && lanes.places.is_empty());
    }
}

/// Whatever happens, in whatever order: no job is lost, no cap is passed, and a thread that could run a job has one.
#[test]
fn random_histories() {
    let mut state = 1u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..200 {
        let (threads, per_file) = (1 + random(6) as usize, 1 + random(4) as usize);
        let reserve = random(threads as u64) as usize;
        let mut lanes = lanes(threads, per_file, reserve);
        let mut running: Vec<Key> = Vec::new();
        let mut waiting: Vec<(Key, u32)> = Vec::new();
        for job in 0..100u32 {
            match random(4) {
                0 | 1 => {
                    let key = (file(random(3)).0, random(4) == 0);
                    lanes.push(key, u64::from(job), job);
                    waiting.push((key, job));
                }
                2 if !running.is_empty() => {
                    let key = running.swap_remove(random(running.len() as u64) as usize);
                    lanes.finished(key);
                }
                3 if !waiting.is_empty() => {
                    let (_, job) = waiting.swap_remove(random(waiting.len() as u64) as usize);
                    assert_eq!(lanes.remove(u64::from(job)), Some(job));
                }
                _ => {}
            }
            while let Some((key, job)) = lanes.next() {
                let oldest = waiting.iter().filter(|(other, _)| *other == key).map(|(_, job)| *job).min();
                assert_eq!(oldest, Some(job), "first come, first served");
                waiting.retain(|(_, other)| *other != job);
                running.push(key);
            }
            let runs = |key: Key| running.iter().filter(|other| **other == key).count();
            assert!(running.len() <= threads);
            for (key, _) in &waiting {
                let most = if key.1 { 1 } else { per_file };
                assert!(runs(*key) <= most);
                let free = running.len() < threads - reserve && runs(*key) < most;
                let reserved = running.len() < threads && runs(*key) == 0;
                assert!(!free && !reserved, "a job waits for nothing");
            }
        }
    }
}
