//! From a node that must not wait to whoever keeps records of it.

use tokio::sync::mpsc::{OwnedPermit, Sender};

use crate::replay::{Record, Tap};

/// A recording under way. Its end is told when it is dropped, into a place reserved from the start.
struct Recording {
    records: Sender<Record>,
    end: Option<OwnedPermit<Record>>,
    complete: bool,
}

/// A tap that passes records to `records`; a full channel ends the recording.
///
/// # Panics
/// When the channel is full or closed already.
pub(super) fn tap(records: Sender<Record>) -> Tap {
    let end = records.clone().try_reserve_owned().expect("the channel is new");
    let mut recording = Recording { records, end: Some(end), complete: true };
    Box::new(move |record| recording.take(record))
}

impl Recording {
    fn take(&mut self, record: Record) {
        if self.complete && self.records.try_send(record).is_err() {
            self.complete = false;
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end.send(Record::End { complete: self.complete });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_full_channel_ends_the_recording_and_is_told() {
        let (sender, mut records) = channel(3);
        let mut tap = tap(sender);
        for _ in 0..3 {
            // Any record will do.
            tap(Record::End { complete: true });
        }
        let first = records.try_recv();
        assert!(matches!(first, Ok(Record::End { complete: true })));
        tap(Record::End { complete: true });
        drop(tap);
        let mut last = None;
        while let Ok(Record::End { complete }) = records.try_recv() {
            last = Some(complete);
        }
        assert_eq!(last, Some(false), "what came after the gap is of no use");
    }
}
