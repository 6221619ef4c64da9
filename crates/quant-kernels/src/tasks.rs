//! Products cut into tasks: some rows of one of several matrices, one below the other.

use crate::{Int8Weights, Interleaved, Matrix, Result};
use rayon::prelude::*;

/// A matrix, of which tasks are rows.
pub(crate) trait Rows: Sync {
    fn rows(&self) -> usize;
}

impl Rows for Matrix<'_> {
    fn rows(&self) -> usize {
        self.rows
    }
}

impl Rows for Interleaved<'_> {
    fn rows(&self) -> usize {
        Interleaved::rows(self)
    }
}

impl Rows for &Int8Weights {
    fn rows(&self) -> usize {
        Int8Weights::rows(self)
    }
}

/// Some rows of one matrix, and where they begin in a row of y.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a, W> {
    pub(crate) matrix: &'a W,
    pub(crate) first: usize,
    pub(crate) rows: usize,
    pub(crate) column: usize,
}

/// All rows of several matrices, in tasks of at most so many.
pub(crate) struct Tasks<'a, W> {
    weights: &'a [W],
    most: usize,
}

impl<'a, W: Rows> Tasks<'a, W> {
    /// `most` is at least 1.
    pub(crate) fn new(weights: &'a [W], most: usize) -> Self {
        Self { weights, most: most.max(1) }
    }

    fn count(&self) -> usize {
        self.weights.iter().map(|w| w.rows().div_ceil(self.most)).sum()
    }

    fn get(&self, mut index: usize) -> Option<Task<'a, W>> {
        let mut column = 0;
        for matrix in self.weights {
            let here = matrix.rows().div_ceil(self.most);
            if index < here {
                let first = index * self.most;
                return Some(Task {
                    matrix,
                    first,
                    rows: self.most.min(matrix.rows() - first),
                    column: column + first,
                });
            }
            index -= here;
            column += matrix.rows();
        }
        None
    }

    /// Runs each, on the threads of the current rayon pool. A single one runs here.
    pub(crate) fn run(&self, task: impl Fn(Task<'a, W>) -> Result<()> + Sync) -> Result<()> {
        let run = |index: usize| self.get(index).map_or(Ok(()), &task);
        match self.count() {
            1 => run(0),
            n => (0..n).into_par_iter().with_max_len(1).try_for_each(run),
        }
    }
}

/// Rows of a task of few tokens, of all rows that are to be cut: so many tasks that threads end at about the same time, but each with some weights to read in one
/// go, unless a thread would have none.
pub(crate) fn few_rows(rows: usize, row_bytes: usize) -> usize {
    let (threads, of) = (rayon::current_num_threads(), |bytes: usize| bytes / row_bytes.max(1));
    // Below some 32 kB a start would cost more than it saves.
    let least = of(256 << 10).min(rows.div_ceil(threads)).max(of(32 << 10)).max(1);
    rows.div_ceil(16 * threads).max(least)
}

/// A place that tasks on several threads write to, each its own parts.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);
// SAFETY: the tasks that share it write to disjoint places.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Of a buffer that outlives the tasks.
    pub(crate) fn new(y: &mut [f32]) -> Self {
        Self(y.as_mut_ptr())
    }

    /// # Safety
    /// `offset` within the buffer.
    pub(crate) unsafe fn at(&self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { self.0.add(offset) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_once() {
        struct Of(usize);
        impl Rows for Of {
            fn rows(&self) -> usize {
                self.0
            }
        }
        for (rows, most) in [(vec![5, 0, 8, 1], 3), (vec![4], 9), (vec![0], 2), (vec![], 1), (vec![7, 7], 7)] {
            let weights: Vec<Of> = rows.into_iter().map(Of).collect();
            let tasks = Tasks::new(&weights, most);
            let mut column = 0;
            for task in (0..tasks.count()).filter_map(|i| tasks.get(i)) {
                assert!(task.column == column && (1..=most).contains(&task.rows));
                assert!(task.first + task.rows <= task.matrix.0);
                column += task.rows;
            }
            assert_eq!(column, weights.iter().map(|w| w.0).sum::<usize>());
            assert!(tasks.get(tasks.count()).is_none());
        }
    }
}
