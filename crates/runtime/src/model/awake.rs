//! Threads that wait for the next product of a token without going to sleep.
//!
//! A token is some hundred products with a few microseconds between them, in which rayon's threads begin to sleep; to wake one takes as long as a small
//! product.

use rayon::Yield;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// So long a thread looks for work before it goes to sleep after all.
const PATIENCE: Duration = Duration::from_micros(200);

/// Looks without looking at the clock.
const LOOKS: usize = 64;

thread_local! {
    /// This thread is looking for work here already.
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` inside the current pool, whose other threads stay awake meanwhile as long as there is work every now and then.
pub(super) fn with_threads_awake<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let done = AtomicBool::new(false);
    rayon::scope(|scope| {
        if rayon::current_num_threads() > 1 {
            let caller = rayon::current_thread_index();
            let done = &done;
            scope.spawn_broadcast(move |_, thread| {
                if Some(thread.index()) != caller && !LOOKING.replace(true) {
                    look_for_work(done);
                    LOOKING.set(false);
                }
            });
        }
        let _done = Done(&done);
        f()
    })
}

/// Runs what work there is. A thread may come here while it waits in the midst of other work, on which `f` may wait in its turn: so an end to its patience
/// is needed, not only for the processor's sake.
fn look_for_work(done: &AtomicBool) {
    let mut since = Instant::now();
    let mut looks = 0;
    while !done.load(Ordering::Relaxed) {
        if rayon::yield_now() == Some(Yield::Executed) {
            (since, looks) = (Instant::now(), 0);
            continue;
        }
        std::hint::spin_loop();
        looks += 1;
        if looks % LOOKS == 0 && since.elapsed() > PATIENCE {
            return;
        }
    }
}

/// Says that it is over, even if by a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    /// Passes beside and within each other, with parallel work of their own, all end.
    #[test]
    fn nested() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let sums: Vec<usize> = pool.install(|| {
            let pass = |i: usize| -> usize {
                with_threads_awake(|| (0..20).map(|k| (0..40).into_par_iter().map(|x| x + k + i).sum::<usize>()).sum())
            };
            (0..200).into_par_iter().map(|i| with_threads_awake(|| pass(i))).collect()
        });
        let expected = |i: usize| (0..20).map(|k| (0..40).map(|x| x + k + i).sum::<usize>()).sum::<usize>();
        assert!(sums.iter().enumerate().all(|(i, sum)| *sum == expected(i)));
    }

    #[test]
    fn a_panic_ends_it() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let caught = pool.install(|| std::panic::catch_unwind(|| with_threads_awake(|| panic!("on purpose"))));
        assert!(caught.is_err());
    }
}
