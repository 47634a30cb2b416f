//! [`Checker`]: whether a reply says what every right node would say.
//!
//! What a right node knows of the sources follows from its own id alone. It has at least eight nodes, or
//! all that there are, of each part of the key space that begins with the first d bits of its id and then
//! another bit (a bucket of BEP 5). So about a target that shares d bits with its id it names eight nodes
//! that share d+1 with the target; where there are not so many, all of them, and eight that share d bits;
//! and so on. It need not know more, and need not name who asks.
//!
//! That is demanded of our own node. Of others only that they name eight that exist: rqbit 9.1 puts
//! those that it calls good before those that are near, and libtorrent 2.1 has gaps in its deep buckets.

use btdht::Rng;
use krpc::Id;
use krpc::bencode::Strings;
use krpc::compact::{self, Address as _, V4};

use super::sources::{self, SOURCES, Sources};

/// Peers of each infohash.
pub const PEERS: u32 = 10;
/// Nodes that a bucket holds, and that a reply names (BEP 5).
const K: usize = 8;
/// Buckets in which some of the sources are.
const BUCKETS: usize = 16;
/// Nodes that fit into a reply of 1024 bytes.
const MOST: usize = 39;

/// What is known of the node that is asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checker {
    /// Its id, which it does not change.
    own: Option<Id>,
    /// Whether its table has filled: only then it can name whom it has to.
    taught: bool,
    /// Whether it has to name the near ones.
    near: bool,
}

impl Checker {
    /// A node whose id is not known yet; with `near`, its table is to hold whom a right one holds.
    pub(super) fn new(near: bool) -> Self {
        Self { near, ..Self::default() }
    }

    /// From now on the node has to name whom a full table holds.
    pub(super) fn table_is_full(&mut self) {
        self.taught = true;
    }

    /// The id with which the node answers: always the same.
    pub(super) fn check_id(&mut self, id: Id) -> Result<(), String> {
        let own = *self.own.get_or_insert(id);
        if id == own { Ok(()) } else { Err(format!("the id {id} of a node that is {own}")) }
    }

    /// A random id of one of the node's buckets, of which each is as likely; any id while its own is not known.
    pub(super) fn of_some_bucket(&self, rng: &mut Rng) -> Id {
        let mut id = *rng.id().as_bytes();
        if let Some(own) = self.own {
            let head = |bytes: &[u8; Id::LEN]| u32::from_be_bytes(std::array::from_fn(|n| bytes[n]));
            // The first bit of the distance is where it leaves the node's own part of the key space.
            let distance = (head(&id) | 1 << 31) >> rng.below(BUCKETS);
            id[..4].copy_from_slice(&(head(own.as_bytes()) ^ distance).to_be_bytes());
        }
        Id::new(id)
    }

    /// The nodes named to `asker` about `target`, which exist; whether they are those of a full table, as they
    /// have to be once it is.
    pub(super) fn check_nodes(
        &self,
        nodes: &[u8],
        (target, asker): (&Id, u32),
        sources: &Sources,
    ) -> Result<bool, String> {
        let mut shared = [0; MOST];
        let count = check_existence(nodes, sources, |n, id| shared[n] = id.prefix_len(target))?;
        if count == 0 {
            return Err("no nodes".to_owned());
        }
        let Some(own) = self.own else { return Ok(false) };
        let whole = match (count < K, self.near) {
            (true, _) => Err(format!("{count} nodes of a full table")),
            (_, true) => check_nearness(&shared[..count], &own, (target, asker), sources),
            (_, false) => Ok(()),
        };
        if self.taught { whole.map(|()| true) } else { Ok(whole.is_ok()) }
    }
}

/// Whether all nodes are different ones that exist where and as whom they are said to; how many they are.
/// `each` takes their ids.
pub(super) fn check_existence(
    nodes: &[u8],
    sources: &Sources,
    mut each: impl FnMut(usize, &Id),
) -> Result<usize, String> {
    let count = nodes.len() / V4::NODE_LEN;
    if !nodes.len().is_multiple_of(V4::NODE_LEN) || count > MOST {
        return Err(format!("{} bytes of nodes", nodes.len()));
    }
    let mut seen = [0; MOST];
    for (n, contact) in compact::nodes::<V4>(nodes).enumerate() {
        let addr = contact.addr;
        let source = sources::at(addr.as_wire()).ok_or_else(|| format!("nobody lives at {addr:?}"))?;
        if sources.id(source) != Some(contact.id) {
            return Err(format!("{addr:?} with the id {} of somebody else", contact.id));
        }
        if seen[..n].contains(&source) {
            return Err(format!("{addr:?} twice"));
        }
        seen[n] = source;
        each(n, &contact.id);
    }
    Ok(count)
}

/// Whether there are as many as the table of a node with the id `own` holds for certain; `shared` says how
/// many bits each shares with the target.
fn check_nearness(
    shared: &[u32],
    own: &Id,
    (target, asker): (&Id, u32),
    sources: &Sources,
) -> Result<(), String> {
    let asker = sources.id(asker).map_or(0, |id| id.prefix_len(target));
    for bits in (1..=own.prefix_len(target) + 1).rev() {
        let all = sources.sharing(target, bits);
        // Who asks may be one of eight.
        let wanted = all.min(K) - usize::from(asker >= bits);
        let named = shared.iter().filter(|&&shared| shared >= bits).count();
        if named < wanted {
            return Err(format!("{named} nodes that share {bits} bits with {target}, where {all} do"));
        }
        if all >= K {
            // They share fewer bits as well.
            break;
        }
    }
    Ok(())
}

/// Whether the peers of the infohash number `infohash` are different ones of those that announced
/// themselves, and all whose bit is set in `stored`.
pub(super) fn check_values(values: Option<Strings<'_>>, infohash: u32, stored: u16) -> Result<(), String> {
    let (mut named, first) = (0_u16, infohash * PEERS % SOURCES);
    for value in values.into_iter().flat_map(|values| values.iter()) {
        let peer = sources::at(value).and_then(|source| source.checked_sub(first));
        let peer = peer.filter(|&peer| peer < PEERS).ok_or("a peer that never announced")?;
        if named >> peer & 1 == 1 {
            return Err(format!("{:?} twice", sources::wire(first + peer)));
        }
        named |= 1 << peer;
    }
    let missing = (stored & !named).count_ones();
    if missing > 0 { Err(format!("without {missing} of {} peers", stored.count_ones())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use btdht::{Rng, Seeds};
    use krpc::compact::{Contact, put_node, put_value};

    use super::*;

    const ASKER: u32 = 9;

    #[test]
    fn each_bucket_is_asked_about() {
        let mut rng = Rng::from_seed(1);
        let (own, mut checker) = (rng.id(), Checker::new(true));
        checker.check_id(own).unwrap();
        let mut seen = [0; BUCKETS];
        for _ in 0..BUCKETS * 100 {
            seen[checker.of_some_bucket(&mut rng).prefix_len(&own) as usize] += 1;
        }
        assert!(seen.iter().all(|times| (50..200).contains(times)), "{seen:?}");
    }

    /// Sources and a node among them that has been asked and whose table is full.
    struct Scene {
        sources: Sources,
        checker: Checker,
        own: Id,
        rng: Rng,
    }

    impl Scene {
        fn new(seed: u64) -> Self {
            let mut rng = Rng::new(Seeds::from_u64(seed));
            let sources = Sources::new(&mut rng);
            let own = rng.id();
            let mut checker = Checker::new(true);
            checker.check_id(own).unwrap();
            checker.table_is_full();
            Self { sources, checker, own, rng }
        }

        /// Eight of each bucket, as a node would know them: the first ones that it met.
        fn table(&self) -> Vec<u32> {
            let mut room = [K; 161];
            let takes = |&n: &u32| {
                let room = &mut room[self.id(n).prefix_len(&self.own) as usize];
                let free = *room > 0;
                *room = room.saturating_sub(1);
                free
            };
            (0..sources::SOURCES).filter(takes).collect()
        }

        fn id(&self, source: u32) -> Id {
            self.sources.id(source).unwrap()
        }

        fn check(&self, nodes: &[u32], target: &Id) -> Result<bool, String> {
            self.checker.check_nodes(&self.records(nodes), (target, ASKER), &self.sources)
        }

        fn records(&self, nodes: &[u32]) -> Vec<u8> {
            let mut records = Vec::new();
            for &n in nodes {
                put_node(&mut records, &Contact { id: self.id(n), addr: sources::wire(n) });
            }
            records
        }
    }

    fn fault(result: Result<impl std::fmt::Debug, String>) -> String {
        result.unwrap_err()
    }

    #[test]
    fn a_node_with_eight_in_each_bucket_is_right_about_every_target() {
        for seed in 0..4 {
            let mut scene = Scene::new(seed);
            let mut table = scene.table();
            let mut targets: Vec<Id> = (0..500).map(|_| scene.rng.id()).chain([scene.own]).collect();
            targets.extend(scene.sources.nearest(&scene.own).into_iter().map(|n| scene.id(n)));
            for target in targets {
                table.sort_unstable_by_key(|&n| scene.id(n).distance(&target));
                assert_eq!(scene.check(&table[..K], &target), Ok(true), "seed {seed}, {target}");
                // It may leave out who asks.
                let named: Vec<u32> = table.iter().copied().filter(|&n| n != ASKER).take(K).collect();
                assert_eq!(scene.check(&named, &target), Ok(true), "seed {seed}, {target} without the asker");
            }
        }
    }

    #[test]
    fn far_nodes_are_found() {
        let mut scene = Scene::new(1);
        for _ in 0..100 {
            // All eight in the half of the key space in which the target is not.
            let target = scene.rng.id();
            let far: Vec<u32> =
                (0..sources::SOURCES).filter(|&n| scene.id(n).prefix_len(&target) == 0).take(K).collect();
            assert!(fault(scene.check(&far, &target)).starts_with("0 nodes that share"), "{target}");
            // One of eight.
            let mut near = scene.sources.nearest(&target);
            near[7] = far[0];
            if scene.id(ASKER).prefix_len(&target) == 0 {
                assert!(fault(scene.check(&near, &target)).starts_with("7 nodes that share"), "{target}");
            }
        }
    }

    #[test]
    fn a_node_that_forgets_one_of_its_few_neighbours_is_found() {
        let scene = Scene::new(1);
        let near = scene.sources.nearest(&scene.own);
        let target = scene.id(near[0]);
        let mut table = scene.table();
        table.sort_unstable_by_key(|&n| scene.id(n).distance(&target));
        assert_eq!(scene.check(&table[..K], &target), Ok(true));
        assert!(fault(scene.check(&table[1..=K], &target)).contains("that share"));
    }

    #[test]
    fn wrong_addresses_are_found() {
        let mut scene = Scene::new(1);
        let target = scene.rng.id();
        let near = scene.sources.nearest(&target);
        let good = scene.records(&near);
        let check = |records: &[u8]| scene.checker.check_nodes(records, (&target, ASKER), &scene.sources);
        assert_eq!(check(&good), Ok(true));
        for (at, flipped, why) in [
            (25, 1, "nobody lives at"),  // the port
            (23, 1, "nobody lives at"),  // the last byte of the address
            (22, 1, "of somebody else"), // the address of another source
            (19, 1, "of somebody else"), // the end of the id
        ] {
            let mut records = good.clone();
            records[at] ^= flipped;
            assert!(fault(check(&records)).contains(why), "byte {at}");
        }
        assert!(fault(check(&good[..good.len() - 1])).contains("bytes of nodes"));
    }

    #[test]
    fn duplicates_are_found() {
        let mut scene = Scene::new(1);
        let target = scene.rng.id();
        let mut near = scene.sources.nearest(&target);
        near[7] = near[2];
        assert!(fault(scene.check(&near, &target)).ends_with("twice"));
    }

    #[test]
    fn too_few_nodes_are_found_once_the_table_is_full() {
        let mut scene = Scene::new(1);
        let target = scene.rng.id();
        let near = scene.sources.nearest(&target);
        assert_eq!(fault(scene.check(&near[..7], &target)), "7 nodes of a full table");
        assert_eq!(fault(scene.check(&[], &target)), "no nodes");
        scene.checker = Checker::new(true);
        assert_eq!(scene.check(&near[..7], &target), Ok(false), "it knows no more yet");
        assert_eq!(fault(scene.check(&[], &target)), "no nodes");
    }

    #[test]
    fn another_id_is_found() {
        let mut scene = Scene::new(1);
        assert_eq!(scene.checker.check_id(scene.own), Ok(()));
        let other = scene.rng.id();
        assert!(fault(scene.checker.check_id(other)).starts_with("the id"));
    }

    #[test]
    fn missing_and_strange_peers_are_found() {
        let check = |peers: &[u32], stored| {
            let mut raw = Vec::new();
            peers.iter().for_each(|&n| put_value(&mut raw, sources::wire(n).to_socket()));
            check_values(Some(Strings::from_raw(&raw).unwrap()), 3, stored)
        };
        let all: Vec<u32> = (30..40).collect();
        assert_eq!(check(&all, 0x3ff), Ok(()));
        assert_eq!(check(&all, 0), Ok(()), "announces may overtake");
        assert_eq!(check(&all[1..], 0x3fe), Ok(()));
        assert_eq!(fault(check(&all[1..], 0x3ff)), "without 1 of 10 peers");
        assert_eq!(fault(check_values(None, 3, 0x3ff)), "without 10 of 10 peers");
        assert!(fault(check(&[30, 31, 30], 3)).ends_with("twice"));
        for stranger in [29, 40, 20_030] {
            assert_eq!(fault(check(&[stranger], 0)), "a peer that never announced");
        }
        assert_eq!(check_values(None, 3, 0), Ok(()));
    }
}
