//! What is read ahead for peers.

use super::*;

const LONG: u32 = 160 << 10;
const LAST: u32 = 1000;

/// Three pieces of 160 KiB, so of two chunks, and a short one.
fn long() -> (Arc<Info>, Vec<u8>) {
    let bytes: Vec<u8> = (0..(3 * LONG + LAST) as usize).map(|at| (at * at / 89) as u8).collect();
    let hashes: Vec<u8> = bytes.chunks(LONG as usize).flat_map(Sha1::digest).collect();
    let mut raw = Vec::new();
    let mut writer = Writer::new(&mut raw);
    writer.dict().key(b"length").int(bytes.len() as i64).key(b"name").bytes(b"long");
    writer.key(b"piece length").int(i64::from(LONG)).key(b"pieces").bytes(&hashes).end();
    (Arc::new(Info::parse(&raw).unwrap()), bytes)
}

fn at(piece: u32, begin: u32, len: u32) -> BlockRef {
    BlockRef { piece: PieceIndex(piece), begin, len }
}

#[test]
fn a_chunk_is_read_into_the_buffer_of_an_older_one() {
    let (info, bytes) = long();
    // Room for one chunk and for two.
    for read_cache in [0, 256 << 10] {
        let storage = Arc::new(MemStorage::new([bytes.len() as u64]));
        storage.write(0, 0, &mut [std::io::IoSlice::new(&bytes)]).unwrap();
        let opened = Opened::over(Arc::clone(&info), storage as _, Bitfield::full(4)).unwrap();
        let (sender, answers) = channel();
        let pool = opened
            .start(PoolConfig { read_cache, ..threads(1) }, move |done| sender.send(done).unwrap_or(()));
        let pool = pool.unwrap();
        // Short ones before long ones and behind them, and one across two chunks.
        let wanted = [
            at(3, 0, LAST),
            at(0, 0, 9),
            at(0, LONG - 7, 7),
            at(1, 5, 100),
            at(2, 1000, 128 << 10),
            at(3, 990, 10),
        ];
        for block in wanted.into_iter().chain(wanted) {
            pool.submit(Job::Read(PEER, block)).unwrap();
            loop {
                let batch = answers.recv_timeout(Duration::from_secs(20)).expect("an answer in time");
                let Some(Done::Read(_, at, block)) =
                    batch.into_iter().find(|done| matches!(done, Done::Read(..)))
                else {
                    continue;
                };
                let start = (at.piece.0 * LONG + at.begin) as usize;
                assert_eq!(&*block, &bytes[start..start + at.len as usize], "{at:?}");
                break;
            }
        }
    }
}

impl Fixture {
    fn read_one(&self, at: BlockRef) -> Vec<u8> {
        self.pool.submit(Job::Read(PEER, at)).unwrap();
        let mut answers = self.until(|done| matches!(done, Done::Read(..)));
        let Some(Done::Read(_, _, block)) = answers.pop() else { panic!("a block") };
        block.to_vec()
    }

    fn check_all(&self) -> Vec<bool> {
        self.pool.submit(Job::Check(Bitfield::full(self.info.pieces()))).unwrap();
        let answers = self.until(|done| matches!(done, Done::CheckEnded));
        answers
            .iter()
            .filter_map(|done| if let Done::Checked(_, right) = done { Some(*right) } else { None })
            .collect()
    }
}

/// What was damaged when it was read ahead is not sent once it is right again, fetched anew or mended from outside.
#[test]
fn what_was_read_ahead_is_forgotten_when_a_check_or_a_write_says_otherwise() {
    let fixture = Fixture::with(threads(1), true);
    let right = payload()[..9].to_vec();
    let put = |bytes: &[u8]| fixture.storage.write(0, 0, &mut [std::io::IoSlice::new(bytes)]).unwrap();
    put(b"wrong one");
    assert_eq!(fixture.read_one(at(0, 0, 9)), b"wrong one");
    assert_eq!(fixture.check_all().iter().filter(|right| !**right).count(), 1);
    fixture.write_piece(0);
    fixture.until(|done| matches!(done, Done::Piece(_, Verdict::Good)));
    assert_eq!(fixture.read_one(at(0, 0, 9)), right);
    put(b"wrong two");
    // It was right when it was read ahead.
    assert_eq!(fixture.read_one(at(0, 0, 9)), right);
    assert_eq!(fixture.check_all().iter().filter(|right| !**right).count(), 1);
    put(&right);
    assert!(fixture.check_all().into_iter().all(|right| right));
    put(b"wrong six");
    assert_eq!(fixture.read_one(at(0, 0, 9)), b"wrong six");
    put(&right);
    assert!(fixture.check_all().into_iter().all(|right| right));
    assert_eq!(fixture.read_one(at(0, 0, 9)), right);
}
