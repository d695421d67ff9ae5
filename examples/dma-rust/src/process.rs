// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine in a process. Its timer is a thread.

extern crate std;

use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::engine::TICK_NS;
use crate::{Dma, Engine, Timer};

/// A thread that sleeps between two interrupts, and while there is nothing to do.
#[derive(Debug, Default)]
pub struct Ticker(OnceLock<Thread>);

impl Timer for Ticker {
    fn start(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // The thread finds that its engine is gone.
        self.start();
    }
}

impl Dma<Arc<Engine<Ticker>>> {
    /// A driver with an engine of its own.
    #[must_use]
    pub fn in_process() -> Self {
        let engine = Arc::new(Engine::new(Ticker::default()));
        let weak = Arc::downgrade(&engine);
        let thread = thread::spawn(move || tick(&weak));
        // Nobody has started it yet.
        let _ = engine.timer.0.set(thread.thread().clone());
        Self(engine)
    }
}

/// Ends with the engine. Between two ticks it must not keep it: then a cancel of what is in flight would be all that ends it.
fn tick(engine: &Weak<Engine<Ticker>>) {
    while let Some(goes_on) = engine.upgrade().map(|engine| engine.interrupt()) {
        if goes_on {
            thread::sleep(Duration::from_nanos(TICK_NS.into()));
        } else {
            thread::park();
        }
    }
}
