//! Which column is quantized when, and with which group.

use crate::{GptqError, Order};

/// Columns of a block: what is updated by one matrix product.
pub(crate) const BLOCK: usize = 128;

/// The order of the columns and their groups. A *position* is a place in the order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnOrder {
    pub(crate) kind: Order,
    pub(crate) group_size: usize,
    /// Column at each position.
    pub(crate) columns: Vec<u32>,
    /// Group at each position.
    pub(crate) groups: Vec<u32>,
    /// Place within the group at each position.
    pub(crate) slots: Vec<u32>,
    /// Positions by group and slot.
    pub(crate) by_slot: Vec<u32>,
}

impl ColumnOrder {
    /// `activation` is the diagonal of the Hessian; equal ones keep their order.
    pub(crate) fn new(kind: Order, group_size: Option<usize>, activation: &[f64]) -> Result<Self, GptqError> {
        let n = activation.len();
        let group_size = group_size.unwrap_or(n).min(n);
        if group_size == 0 {
            return Err(GptqError::GroupSize);
        }
        let falling = |a: &u32, b: &u32| activation[*b as usize].total_cmp(&activation[*a as usize]);
        let mut columns: Vec<u32> = (0..n as u32).collect();
        match kind {
            Order::Natural => {}
            Order::ActGroupAware => {
                let mut groups: Vec<&mut [u32]> = columns.chunks_mut(group_size).collect();
                groups.iter_mut().for_each(|group| group.sort_by(falling));
                groups.sort_by(|a, b| falling(&a[0], &b[0]));
                columns = groups.into_iter().flat_map(|group| group.iter().copied()).collect();
            }
            Order::DescAct { .. } => columns.sort_by(falling),
        }
        let by_position = matches!(kind, Order::DescAct { static_groups: false });
        let place = |(position, &column): (usize, &u32)| if by_position { position } else { column as usize };
        let places: Vec<usize> = columns.iter().enumerate().map(place).collect();
        let mut by_slot = vec![0; n];
        places.iter().enumerate().for_each(|(position, &place)| by_slot[place] = position as u32);
        let groups = places.iter().map(|place| (place / group_size) as u32).collect();
        let slots = places.iter().map(|place| (place % group_size) as u32).collect();
        Ok(Self { kind, group_size, columns, groups, slots, by_slot })
    }

    /// Whether groups are scattered over the order, so that their parameters must be there before the first column.
    pub(crate) fn is_static(&self) -> bool {
        self.kind == Order::DescAct { static_groups: true }
    }

    /// Group of each column, where that is not `column / group_size`.
    pub(crate) fn g_idx(&self) -> Option<Vec<u32>> {
        (self.kind == Order::DescAct { static_groups: false }).then(|| {
            let mut g_idx = vec![0; self.columns.len()];
            self.columns.iter().zip(&self.groups).for_each(|(&column, &group)| g_idx[column as usize] = group);
            g_idx
        })
    }

    /// Runs of positions whose weights are brought up to date by one product: whole groups, as many as make a block, at least one.
    pub(crate) fn spans(&self) -> Vec<std::ops::Range<usize>> {
        let mut spans: Vec<std::ops::Range<usize>> = Vec::new();
        for piece in self.group_runs() {
            match spans.last_mut() {
                Some(span) if piece.end - span.start <= BLOCK => span.end = piece.end,
                _ => spans.push(piece),
            }
        }
        spans
    }

    /// The positions of a span cut at groups, and at blocks where a group is larger.
    pub(crate) fn pieces(&self, span: std::ops::Range<usize>) -> Vec<std::ops::Range<usize>> {
        let mut pieces: Vec<std::ops::Range<usize>> = Vec::new();
        for at in span {
            match pieces.last_mut() {
                Some(piece) if at - piece.start < BLOCK && (self.is_static() || !self.starts_group(at)) => {
                    piece.end = at + 1
                }
                _ => pieces.push(at..at + 1),
            }
        }
        pieces
    }

    /// Columns and their positions, by runs of neighbouring columns that a cache line holds: transposing goes from one to the next.
    pub(crate) fn cache_lines(&self) -> Vec<Vec<(usize, usize)>> {
        let mut places: Vec<(usize, usize)> =
            self.columns.iter().enumerate().map(|(position, &column)| (column as usize, position)).collect();
        places.sort_unstable();
        places.chunks(16).map(<[_]>::to_vec).collect()
    }

    /// The positions of a group, by slot.
    pub(crate) fn group(&self, group: usize) -> &[u32] {
        let start = group * self.group_size;
        &self.by_slot[start..self.by_slot.len().min(start + self.group_size)]
    }

    /// Whether a group begins at a position. Not for scattered groups.
    pub(crate) fn starts_group(&self, position: usize) -> bool {
        position == 0 || self.groups[position] != self.groups[position - 1]
    }

    /// The positions from `start` on that belong to its group. Not for scattered groups.
    pub(crate) fn run_of(&self, start: usize) -> std::ops::Range<usize> {
        start..start + self.group(self.groups[start] as usize).len()
    }

    fn group_runs(&self) -> Vec<std::ops::Range<usize>> {
        let n = self.columns.len();
        if self.is_static() {
            return (0..n).step_by(BLOCK).map(|start| start..n.min(start + BLOCK)).collect();
        }
        let starts: Vec<usize> = (0..n).filter(|&at| self.starts_group(at)).collect();
        starts.iter().zip(starts.iter().skip(1).chain([&n])).map(|(&start, &end)| start..end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_by_hand() {
        let activation = [1.0, 5.0, 2.0, 9.0, 7.0];
        let dynamic = Order::DescAct { static_groups: false };
        let fixed = Order::DescAct { static_groups: true };
        let cases = [
            (Order::Natural, [0, 1, 2, 3, 4], [0, 0, 1, 1, 2], [0, 1, 0, 1, 0], None),
            (Order::ActGroupAware, [3, 2, 4, 1, 0], [1, 1, 2, 0, 0], [1, 0, 0, 1, 0], None),
            (dynamic, [3, 4, 1, 2, 0], [0, 0, 1, 1, 2], [0, 1, 0, 1, 0], Some(vec![2, 1, 1, 0, 0])),
            (fixed, [3, 4, 1, 2, 0], [1, 2, 0, 1, 0], [1, 0, 1, 0, 0], None),
        ];
        for (kind, columns, groups, slots, g_idx) in cases {
            let order = ColumnOrder::new(kind, Some(2), &activation).unwrap();
            assert_eq!(
                (&order.columns[..], &order.groups[..], &order.slots[..]),
                (&columns[..], &groups[..], &slots[..])
            );
            assert_eq!(order.g_idx(), g_idx, "{kind:?}");
        }
        assert_eq!(ColumnOrder::new(Order::Natural, Some(0), &[1.0]), Err(GptqError::GroupSize));
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn spans_hold_whole_groups() {
        let cases = [
            (300, Some(32), vec![0..128, 128..256, 256..300], 4),
            (300, Some(96), vec![0..96, 96..192, 192..300], 1),
            (300, None, vec![0..300], 3),
            (300, Some(200), vec![0..200, 200..300], 2),
        ];
        for (n, group_size, spans, pieces) in cases {
            let order = ColumnOrder::new(Order::Natural, group_size, &vec![1.0; n]).unwrap();
            assert_eq!(order.spans(), spans, "{group_size:?}");
            assert_eq!(order.pieces(spans[0].clone()).len(), pieces, "{group_size:?}");
        }
    }
}
