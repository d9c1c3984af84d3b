//! What stands under ids, very many of it. It is kept in many small tables that grow each for itself,
//! and behind pointers, so that no insert ever moves all there is. Knows ids only.

use ahash::{AHashMap, RandomState};

use crate::id::HomedId;

/// Tables: with a million entries each holds about two thousand pointers.
const PIECES: usize = 512;
const _: () = assert!(PIECES.is_power_of_two());

#[derive(Debug)]
pub(super) struct Shelf<T> {
    pieces: Box<[AHashMap<HomedId, Box<T>>]>,
    hasher: RandomState,
    len: usize,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        let pieces = (0..PIECES).map(|_| AHashMap::new()).collect();
        let (hasher, len) = (RandomState::new(), 0);
        Self {
            pieces,
            hasher,
            len,
        }
    }
}

impl<T> Shelf<T> {
    fn piece(&self, id: HomedId) -> usize {
        let hash = self.hasher.hash_one(id) % PIECES as u64;
        usize::try_from(hash).unwrap_or(0)
    }

    pub(super) fn get(&self, id: &HomedId) -> Option<&T> {
        self.pieces[self.piece(*id)].get(id).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: &HomedId) -> Option<&mut T> {
        let piece = self.piece(*id);
        self.pieces[piece].get_mut(id).map(Box::as_mut)
    }

    /// Puts it there, in place of what stood there.
    pub(super) fn insert(&mut self, id: HomedId, value: T) {
        let piece = self.piece(id);
        let old = self.pieces[piece].insert(id, Box::new(value));
        self.len += usize::from(old.is_none());
    }

    pub(super) fn remove(&mut self, id: &HomedId) -> Option<T> {
        let piece = self.piece(*id);
        let old = self.pieces[piece].remove(id)?;
        self.len -= 1;
        Some(*old)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What one of the tables holds; `None` behind the last.
    pub(super) fn piece_at(&self, piece: usize) -> Option<impl Iterator<Item = (&HomedId, &T)>> {
        let piece = self.pieces.get(piece)?;
        Some(piece.iter().map(|(id, value)| (id, value.as_ref())))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&HomedId, &T)> {
        let pieces = self.pieces.iter().flat_map(|piece| piece.iter());
        pieces.map(|(id, value)| (id, value.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Partition;

    /// L22: an insert moves what one table holds, whatever there is.
    #[test]
    fn no_table_holds_much_and_everything_is_found() {
        let id = |n: u64| HomedId::new(1, Partition(0), n << 20);
        let mut shelf = Shelf::default();
        (0..100_000).for_each(|n| shelf.insert(id(n), n));
        shelf.insert(id(7), 8);
        assert_eq!((shelf.len(), shelf.iter().count()), (100_000, 100_000));
        let largest = shelf.pieces.iter().map(|piece| piece.len()).max();
        assert!(largest < Some(100_000 / PIECES * 3), "{largest:?}");
        assert_eq!(
            (shelf.get(&id(7)), shelf.get(&id(100_000))),
            (Some(&8), None)
        );
        assert_eq!(
            (shelf.remove(&id(7)), shelf.remove(&id(7))),
            (Some(8), None)
        );
        assert_eq!(shelf.len(), 99_999);
    }
}
