//! Fuzz input read as a script.

/// The input, spelled out byte by byte; zeros behind its end.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn next(&mut self) -> u8 {
        self.byte().unwrap_or_default()
    }

    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Changes up to three bytes, as many as the next byte says.
    pub(super) fn change(&mut self, bytes: &mut [u8]) {
        for _ in 0..self.next() % 4 {
            let (at, by) = (usize::from(self.next()) * 3, self.next());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = by;
            }
        }
    }
}
