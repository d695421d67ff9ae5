// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each check against code that breaks it. The drain loop here is a real one, cut down to what matters.

use super::code::functions;
use super::hot::{alone, loops};
use super::{Relocations, allowed, large_frames, unfenced, unjustified, vector_instructions};

#[test]
fn relocations_are_counted_and_panics_found_outside_core() {
    let listing = "\n\
        RELOCATION RECORDS FOR [.text.sq_selftest]:\n\
        OFFSET           TYPE              VALUE\n\
        0000000000000007 R_X86_64_PLT32    memset-0x4\n\
        0000000000000012 R_X86_64_PLT32    .text._RNvNtCs2DxGA1hvVcO_4core9panicking18panic_bounds_check-0x4\n\
        RELOCATION RECORDS FOR [.text._RNvNtCs2DxGA1hvVcO_4core9panicking18panic_bounds_check]:\n\
        0000000000000012 R_X86_64_GOTPCREL .text._RNvNtCs2DxGA1hvVcO_4core9panicking9panic_fmt-0x4\n\
        RELOCATION RECORDS FOR [.debug_info]:\n\
        0000000000000012 R_X86_64_DTPOFF64 x\n";
    let found = Relocations::parse(listing);
    assert_eq!(found.kinds.get("R_X86_64_PLT32"), Some(&2));
    assert_eq!(found.kinds.get("R_X86_64_GOTPCREL"), Some(&1));
    assert_eq!(found.kinds.len(), 2);
    assert_eq!(found.panicking.len(), 1);
}

#[test]
fn a_panic_that_nobody_justified_is_a_fault() {
    let found = ["a -> panic".to_owned(), "b -> panic".to_owned()];
    assert_eq!(unjustified(&found, &[("a -> panic", "never called")]), ["may panic: b -> panic"]);
}

#[test]
fn symbols_and_registers() {
    assert!(allowed("sq_wake") && allowed("__x86_indirect_thunk_r11") && !allowed("__udivti3"));
    assert_eq!(vector_instructions("mov %rbx,%rax\nmovups %xmm0,(%rax)").count(), 1);
}

#[test]
fn a_large_frame_is_a_fault() {
    let function = |name: &str, bytes: &[u64]| {
        let subs = bytes.iter().map(|bytes| format!("   4:\tsub    $0x{bytes:x},%rsp\n"));
        format!("0000000000000000 <{name}>:\n{}   b:\tsub    $0x9000,%rax\n", subs.collect::<String>())
    };
    assert!(large_frames(&(function("small", &[2048]) + &function("_R4edge5place", &[4096, 1024]))).is_empty());
    assert_eq!(large_frames(&function("f", &[4096, 8])), ["f takes 4104 bytes of stack, 2048 at most"]);
    assert_eq!(large_frames(&function("_R4edge5place", &[4096, 1032])).len(), 1);
}

const HEAD: &str = "\
0000000000000000 <run>:
   0:\tmov    (%rdi),%r14
   4:\tmov    0x110(%r14),%r9d
   b:\tand    %r15d,%r9d
   e:\timul   0x100(%r14),%r9
  15:\tmov    0xa0(%r14),%r10
";
const COPY: &str = "\
  1c:\tmov    (%r10,%r9,1),%rcx
  20:\tmov    0x8(%r10,%r9,1),%rax
  24:\tmov    0x10(%r10,%r9,1),%rdx
  28:\tmov    0x18(%r10,%r9,1),%rsi
  2c:\tmov    0x20(%r10,%r9,1),%r13
  30:\tmov    0x28(%r10,%r9,1),%rdi
  34:\tmov    0x30(%r10,%r9,1),%r8
  38:\tmov    0x38(%r10,%r9,1),%r11
";
const CALL: &str = "\
  40:\tmov    %rcx,(%r12)
  44:\tor     %rax,%rdx
  48:\tjne    80 <run+0x80>
  4c:\tmov    0x118(%r14),%rax
  50:\tmov    0x20(%rax),%r11
  54:\tmov    0x30(%rsp),%rdi
  58:\tcall   5d <run+0x5d>
\t\t\t59: R_X86_64_PLT32\t__x86_indirect_thunk_r11-0x4
";
const BACK: &str = "\
  60:\tmov    %r13,(%r12)
  64:\tinc    %r15d
  68:\tjne    4 <run+0x4>
  6a:\tlock orl $0x0,(%rsp)
  6c:\tjmp    71 <run+0x71>
\t\t\t6d: R_X86_64_PLT32\t__x86_return_thunk-0x4
  80:\tcall   85 <run+0x85>
\t\t\t81: R_X86_64_PLT32\t.text.general-0x4
  88:\tjmp    60 <run+0x60>
";

/// The faults of a drain loop that has `after_copy` and `after_call` besides.
fn faults(after_copy: &str, after_call: &str) -> Vec<String> {
    faults_of(&[HEAD, COPY, after_copy, CALL, after_call, BACK].concat())
}

fn faults_of(listing: &str) -> Vec<String> {
    let functions = functions(listing);
    let loops = loops(&functions);
    assert!(!loops.is_empty(), "{listing}");
    loops.iter().flat_map(super::hot::Loop::faults).collect()
}

#[test]
fn the_shortest_round_is_that_of_a_bare_entry() {
    let listing = [HEAD, COPY, CALL, BACK].concat();
    let functions = functions(&listing);
    let [drain] = &loops(&functions)[..] else { panic!("one loop") };
    assert_eq!(drain.faults(), [""; 0]);
    let note = "drain loop, an operation: 22 instructions, 8 loads of the entry, 0 fences and locked, 1 indirect calls";
    assert_eq!(drain.note(), note);
}

#[test]
fn the_way_of_an_entry_alone_leaves_the_function() {
    const OUT: &str =
        "  60:\tmov    %r13,(%r12)\n  6c:\tjmp    71 <run+0x71>\n\t\t\t6d: R_X86_64_PLT32\t__x86_return_thunk-0x4\n";
    const FENCE: &str = "  5f:\tlock orl $0x0,(%rsp)\n";
    let faults = |after: &str| {
        let listing = [HEAD, COPY, "  3c:\tlea    (%r10,%r9,1),%rbx\n", CALL, after, OUT].concat();
        let functions = functions(&listing);
        assert!(loops(&functions).is_empty() && alone(&functions, "another").is_empty());
        let [way] = &alone(&functions, "run")[..] else { panic!("one way") };
        assert!(way.note().starts_with("an operation that comes alone: "), "{}", way.note());
        way.faults()
    };
    assert_eq!(faults(FENCE), [""; 0]);
    let again = ["  5d:\tmov    (%rbx),%rax\n", FENCE].concat();
    assert_eq!(faults(&again), ["run: a second look at the entry: mov 0x0(rbx)"]);
    assert_eq!(faults("  5d:\tlock incq (%r14)\n"), [UNFENCED]);
}

#[test]
fn a_word_that_is_loaded_twice_is_found() {
    // In the copy itself, after it, and by an address that was kept over the call.
    assert_eq!(faults("  3c:\tmov    (%r10,%r9,1),%rbx\n", ""), ["run: the snapshot has 9 loads for 8 words"]);
    assert_eq!(faults("  3c:\tmov    %r9,%rbx\n", "  5d:\tmov    0x20(%r10,%rbx,1),%r13\n").len(), 1);
    let kept = "  3c:\tlea    (%r10,%r9,1),%rbx\n  3e:\tmov    %rbx,0x8(%rsp)\n";
    assert_eq!(faults(kept, "  5d:\tcmpb   $0x0,0x1(%rbx)\n").len(), 1);
    assert_eq!(faults(kept, "  5d:\tmov    0x8(%rsp),%rax\n  5e:\tadd    0x20(%rax),%rcx\n").len(), 1);
    assert_eq!(faults("", "  5d:\tmov    0x20(%r12),%r13\n"), [""; 0]);
}

#[test]
fn an_entry_that_is_copied_twice_is_found() {
    let again = COPY.replace("%r9", "%rbx").replace("%r10", "%rbp");
    assert_eq!(faults_of(&[HEAD, COPY, CALL, &again, BACK].concat()), ["run: a round copies an entry twice"; 2]);
}

#[test]
fn an_address_that_is_given_away_is_found() {
    let faults = faults("  3c:\tlea    (%r10,%r9,1),%rsi\n", "");
    assert_eq!(faults, ["run: a call gets the entry's address in rsi"]);
}

#[test]
fn a_call_that_is_not_the_drivers_is_found() {
    let clock = "  5d:\tcall   62 <run+0x62>\n\t\t\t5e: R_X86_64_PLT32\tsq_now_ns-0x4\n";
    assert_eq!(faults("", clock), ["run: the drain loop calls sq_now_ns"]);
    let twice = "  5d:\tcall   62 <run+0x62>\n\t\t\t5e: R_X86_64_PLT32\t__x86_indirect_thunk_rax-0x4\n";
    assert_eq!(faults("", twice), ["run: the drain loop calls 2 pointers an operation"]);
}

const UNFENCED: &str = "run: a batch is published without a full fence: PostKernel";

#[test]
fn a_fence_that_is_not_there_is_found() {
    let fence = "  6a:\tlock orl $0x0,(%rsp)\n";
    let listing = [HEAD, COPY, CALL, BACK].concat();
    for (other, is_one) in [(fence, true), ("  6a:\tmfence\n", true), ("  6a:\tlock orl $0x4,0xd1c(%rdi)\n", false)] {
        let fault = unfenced(&functions(&listing.replace(fence, other)), "run", "x");
        assert_eq!(fault.is_none(), is_one, "{other}: {fault:?}");
    }
    assert_eq!(unfenced(&functions(&listing), "another", "x"), Some("another has no full fence: x".to_owned()));
}

#[test]
fn fences_and_locked_instructions_are_found() {
    let more = "  5d:\tlock incq 0x8(%rbx)\n  5e:\txchg   %eax,(%rbx)\n  5f:\txchg   %ax,%ax\n";
    let listing = [HEAD, COPY, CALL, more, BACK].concat();
    let functions = functions(&listing);
    let drain = &loops(&functions)[0];
    assert!(drain.note().contains("2 fences and locked"));
    assert_eq!(drain.faults(), ["run: the drain loop has 2 fences or locked instructions an operation"]);
}
