use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A queue of bytes that keeps large pieces as they are and gathers small ones, so that neither many small
/// pieces nor small pieces of large buffers hold much more memory than they have bytes.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    front: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

/// Pieces smaller than this are copied.
const SMALL: usize = 512;

impl Chunks {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Appends `piece`, which is a slice of a buffer of `source` bytes.
    pub(super) fn push(&mut self, piece: Bytes, source: usize) {
        self.len += piece.len();
        if piece.len() < SMALL || piece.len() < source / 4 {
            self.tail.extend_from_slice(&piece);
        } else {
            self.seal();
            self.front.push_back(piece);
        }
    }

    /// Takes at most `max` bytes from the front, `None` if there are none.
    pub(super) fn pop(&mut self, max: usize) -> Option<Bytes> {
        if self.front.is_empty() {
            self.seal();
        }
        let first = self.front.front_mut()?;
        let piece = first.split_to(max.min(first.len()));
        if first.is_empty() {
            self.front.pop_front();
        }
        self.len -= piece.len();
        Some(piece)
    }

    /// Forgets everything and returns how many bytes that were.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).len
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            // Unsplit capacity would stay shared with the sealed piece and be held for as long as it.
            self.front.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}
