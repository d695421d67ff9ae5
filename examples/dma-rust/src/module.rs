// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine of the module. Its timer, an hrtimer, is in module.c.
#![expect(unsafe_code, reason = "C on both sides")]

use crate::{Dma, Engine, Timer};

// module.c
unsafe extern "C" {
    fn sq_dma_start_timer();
}

struct Hrtimer;

impl Timer for Hrtimer {
    fn start(&self) {
        // SAFETY: the timer is there from before the driver is registered until it is gone, and this context may sleep.
        unsafe { sq_dma_start_timer() }
    }
}

static ENGINE: Engine<Hrtimer> = Engine::new(Hrtimer);

/// The hrtimer went off: hard interrupt context.
#[unsafe(no_mangle)]
extern "C" fn sq_dma_interrupt() -> bool {
    ENGINE.interrupt()
}

sq_driver::declare_driver!(Dma<&'static Engine<Hrtimer>>, Dma(&ENGINE));
