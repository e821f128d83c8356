//! How many connections there are, against how many there may be: a number that changes while they last.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// The connections of an edge.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<AtomicU32>);

/// Held by a connection from accept to end.
#[derive(Debug)]
pub(crate) struct Place(Room);

impl Room {
    /// A place, if there are fewer than `most`. Who has one keeps it, also when there are to be fewer.
    pub(crate) fn take(&self, most: u32) -> Option<Place> {
        let one_more = |taken: u32| (taken < most).then(|| taken + 1);
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.is_ok().then(|| Place(self.clone()))
    }

    /// How many have one.
    pub(crate) fn taken(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_as_may_be_now() {
        let room = Room::default();
        let places: Vec<_> = (0..5).map_while(|_| room.take(3)).collect();
        assert_eq!((places.len(), room.taken()), (3, 3));
        assert!(room.take(2).is_none(), "fewer than there are: nobody goes, nobody comes");
        let more = room.take(4);
        assert!(more.is_some() && room.take(4).is_none());
        drop(places);
        assert!(room.take(2).is_some());
    }
}
