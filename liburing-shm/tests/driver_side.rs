// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a driver can rely on: its callbacks may come back into the ring, nothing is allocated for it, and bytes are fetched once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use liburing_shm::opcode::{self, Target};
use liburing_shm::{Backend, CancelFlags, Errno, Ring, SqeFlags, Submitter};
use sq_driver::{Driver, Issued, Op, Opcodes, Request, RequestId, op};
use sq_uapi::SqIovec;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator, and a counter that allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn mem1_accepting_and_completing_allocate_nothing() {
    let mut ring = Ring::builder(32).build(&Backend::embedded(sq_null::Null).unwrap()).unwrap();
    let mut laps = |count| {
        for n in 0..count {
            for _ in 0..32 {
                // Inline and deferred, good and bad.
                let flags = if n % 2 == 0 { SqeFlags::empty() } else { SqeFlags::ASYNC };
                ring.submission().push(opcode::Nop::new().build().flags(flags)).unwrap();
            }
            ring.submit().unwrap();
            assert_eq!(ring.completion().reap().count(), 32);
        }
    };
    laps(2);
    let before = ALLOCATIONS.with(Cell::get);
    laps(100);
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}

#[test]
fn mem1_every_limit_is_queryable_and_holds() {
    let backend = Backend::embedded(sq_null::Null).unwrap();
    let query = backend.query().unwrap();
    let refused = |ring: liburing_shm::Builder| ring.build(&backend).unwrap_err().errno().unwrap();
    assert_eq!(refused(Ring::builder(query.max_sq_entries + 1)), Errno::EINVAL);
    assert_eq!(refused(Ring::builder(1).cq_entries(query.max_cq_entries + 1)), Errno::EINVAL);
    assert_eq!(refused(Ring::builder(1).cq_entries(65536).max_inflight(query.max_inflight + 1)), Errno::EINVAL);
    assert_eq!(refused(Ring::builder(1).pool(u16::MAX, 4096)), Errno::EINVAL);
    assert!(u64::from(u16::MAX) > u64::from(query.max_bufs));
    assert_eq!(refused(Ring::builder(1).pool(1, query.max_buf_bytes + 4096)), Errno::EINVAL);
    Ring::builder(query.max_sq_entries).cq_entries(query.max_cq_entries).build(&backend).unwrap();
}

/// Keeps each request, and completes the one before; calls back into the ring from every callback.
#[derive(Default)]
struct Nosy {
    held: Mutex<Option<Request>>,
    ring: Mutex<Option<Submitter>>,
}

impl Nosy {
    fn look(&self) {
        if let Some(ring) = &*self.ring.lock().unwrap() {
            ring.stats().unwrap();
            // Nobody has this number.
            assert_eq!(ring.cancel(CancelFlags::USERDATA, 12345, 0).unwrap_err().errno(), Some(Errno::ENOENT));
        }
    }
}

static NOSY: Nosy = Nosy { held: Mutex::new(None), ring: Mutex::new(None) };

struct Proxy;

impl Driver for Proxy {
    const NAME: &'static core::ffi::CStr = c"nosy";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP);
    const BATCHES: bool = true;

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        NOSY.look();
        let (request, issued) = op.defer();
        let before = NOSY.held.lock().unwrap().replace(request);
        if let Some(before) = before {
            before.complete(Ok(1));
        }
        issued
    }

    fn cancel(&self, id: RequestId) {
        let mut held = NOSY.held.lock().unwrap();
        if held.as_ref().is_some_and(|request| request.id() == id) {
            held.take().unwrap().complete(Err(Errno::ECANCELED));
        }
    }

    fn begin(&self) {
        NOSY.look();
    }

    fn commit(&self) {
        NOSY.look();
    }
}

#[test]
fn lock1_a_driver_may_come_back_into_the_ring() {
    let mut ring = Ring::builder(8).build(&Backend::embedded(Proxy).unwrap()).unwrap();
    *NOSY.ring.lock().unwrap() = Some(ring.submitter().clone());
    for n in 0..20 {
        ring.submission().push(opcode::Nop::new().build().user_data(n)).unwrap();
        ring.submit().unwrap();
    }
    NOSY.ring.lock().unwrap().take();
    let done: Vec<_> = ring.completion().reap().map(|done| (done.user_data(), done.result())).collect();
    assert_eq!(done.len(), 15, "the 16th slot is held by the request in flight");
    ring.submitter().cancel(CancelFlags::ANY, 0, 0).unwrap();
    let rest: Vec<_> = ring.completion().reap().map(|done| (done.user_data(), done.result())).collect();
    assert_eq!(rest.last(), Some(&(19, Err(Errno::ECANCELED))));
    assert_eq!(done.len() + rest.len(), 20);
}

/// Takes longer to issue than a ring that is dropped waits.
struct Late {
    begun: mpsc::Sender<()>,
    held: Mutex<Option<Request>>,
    _alive: Arc<()>,
}

impl Driver for Late {
    const NAME: &'static core::ffi::CStr = c"late";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::NOP);

    fn issue<'op>(&self, op: Op<'op>) -> Issued<'op> {
        self.begun.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let Ok((request, issued)) = op.defer_indefinite() else { panic!("nothing else is in flight") };
        *self.held.lock().unwrap() = Some(request);
        issued
    }

    fn cancel(&self, _: RequestId) {
        let request = self.held.lock().unwrap().take();
        if let Some(request) = request {
            request.complete(Err(Errno::ECANCELED));
        }
    }
}

#[test]
fn life1_what_a_polling_ring_issues_while_it_is_dropped_is_canceled() {
    let (begun, has_begun) = mpsc::channel();
    let alive = Arc::new(());
    let backend = Backend::embedded(Late { begun, held: Mutex::default(), _alive: Arc::clone(&alive) }).unwrap();
    let mut ring = Ring::builder(8).poll(Duration::from_millis(1)).build(&backend).unwrap();
    ring.submission().push(opcode::Nop::new().build()).unwrap();
    ring.submit().unwrap();
    has_begun.recv().unwrap();
    drop((ring, backend));
    assert_eq!(Arc::strong_count(&alive), 1, "a request keeps its ring, and so the driver");
}

/// Reads its payload in small pieces, and, between two of them, has the application change what comes next and what was before.
struct Picky;

static TARGET: Mutex<Option<usize>> = Mutex::new(None);

impl Driver for Picky {
    const NAME: &'static core::ffi::CStr = c"picky";
    const OPCODES: Opcodes = Opcodes::NONE.with(op::WRITEV).with(op::READV);

    fn issue<'op>(&self, mut op: Op<'op>) -> Issued<'op> {
        // The vector is the application's own again: whatever stands there now was fetched before.
        if let Some(vector) = *TARGET.lock().unwrap() {
            let vector: *mut SqIovec = std::ptr::with_exposed_provenance_mut(vector);
            // SAFETY: the test keeps the vector until the operation is over, and does not touch it.
            unsafe { vector.write(SqIovec { base: 8, len: 1 << 40 }) };
        }
        let mut payload = op.payload();
        let mut sum = 0;
        let mut piece = [0; 3];
        let total = payload.left();
        while payload.left() > 0 {
            let before = payload.left();
            let got = payload.read(&mut piece).unwrap();
            // SNAP-4: forward only.
            assert_eq!(before - payload.left(), got as u64);
            sum += piece[..got].iter().map(|byte| i32::from(*byte)).sum::<i32>();
        }
        assert_eq!(payload.read(&mut piece), Ok(0), "the end stays the end");
        assert_eq!(total, 7);
        op.done(sum)
    }

    fn cancel(&self, _: RequestId) {}
}

#[test]
fn snap3_and_snap4_a_vector_is_fetched_once_and_read_forward() {
    let mut ring = Ring::builder(8).build(&Backend::embedded(Picky).unwrap()).unwrap();
    let (first, second) = ([1u8, 2, 3, 4], [10u8, 20, 30]);
    let piece = |bytes: &[u8]| SqIovec { base: bytes.as_ptr().expose_provenance() as u64, len: bytes.len() as u64 };
    let mut vector = [piece(&first), piece(&second)];
    let start: *mut SqIovec = vector.as_mut_ptr();
    *TARGET.lock().unwrap() = Some(start.expose_provenance());
    let entry = opcode::Writev::new(Target::Device, start, 2).build();
    // SAFETY: the vector and its pieces live until the completion has been reaped, below.
    unsafe { ring.submission().push_raw(entry) }.unwrap();
    ring.submit().unwrap();
    assert_eq!(ring.completion().reap().next().unwrap().result(), Ok(70));
}

#[test]
fn snap3_a_vector_is_checked_before_the_driver_sees_it() {
    let mut ring = Ring::builder(8).build(&Backend::embedded(Picky).unwrap()).unwrap();
    let mut check = |vector: &[SqIovec], count: u32| {
        let entry = opcode::Writev::new(Target::Device, vector.as_ptr(), count).build();
        // SAFETY: refused before anything but the vector is read, and that lives.
        unsafe { ring.submission().push_raw(entry) }.unwrap();
        ring.submit().unwrap();
        ring.completion().reap().next().unwrap().result()
    };
    assert_eq!(check(&[SqIovec { base: u64::MAX, len: 2 }], 1), Err(Errno::EFAULT), "wraps");
    assert_eq!(check(&[SqIovec { base: 4096, len: 1 << 31 }], 1), Err(Errno::EINVAL), "longer than one transfer");
    assert_eq!(check(&[SqIovec { base: 4096, len: u64::MAX - 4096 }; 2], 2), Err(Errno::EINVAL), "the sum wraps");
    assert_eq!(check(&[SqIovec::default(); 17], 17), Err(Errno::EINVAL), "more than max_iov");
    assert_eq!(check(&[], u32::MAX), Err(Errno::EINVAL));
}
