//! From a name to its place in a list, in O(1), without a copy of the name.

use alloc::vec::Vec;
use core::hash::BuildHasher;

/// Open addressing with linear probing over places in a list that the caller keeps; at most 7 of 8 slots are in use.
///
/// Names come from files, so the hash is SipHash with keys that a file cannot know where the system gives random ones (feature `std`).
/// Without it the key is the address of the first table, which a file cannot know either, only guess.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameIndex {
    /// Place + 1; 0 is free. Their number is a power of two, or 0.
    slots: Vec<u32>,
    len: usize,
    state: State,
}

impl NameIndex {
    /// The place of `name`; `name_at` tells the name at a place.
    pub(crate) fn find<'a>(&self, name: &str, name_at: impl Fn(usize) -> Option<&'a str>) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = self.hash(name) as usize & mask;
        loop {
            match *self.slots.get(at)? {
                0 => return None,
                place => {
                    let place = place as usize - 1;
                    if name_at(place) == Some(name) {
                        return Some(place);
                    }
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds the next place, that of `name`, which must not be there.
    pub(crate) fn push<'a>(&mut self, name: &str, name_at: impl Fn(usize) -> Option<&'a str>) {
        if (self.len + 1) * 8 > self.slots.len() * 7 {
            self.grow(name_at);
        }
        self.len += 1;
        self.put(name, self.len);
    }

    /// All places anew, from the names in order.
    pub(crate) fn rebuild<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.slots.fill(0);
        self.len = 0;
        for name in names {
            self.len += 1;
            self.put(name, self.len);
        }
    }

    fn grow<'a>(&mut self, name_at: impl Fn(usize) -> Option<&'a str>) {
        let slots = (self.slots.len() * 2).max(8);
        self.slots = alloc::vec![0; slots];
        #[cfg(not(feature = "std"))]
        if self.len == 0 {
            self.state = State::of_address(self.slots.as_ptr() as usize);
        }
        for place in 0..self.len {
            if let Some(name) = name_at(place) {
                self.put(name, place + 1);
            }
        }
    }

    fn put(&mut self, name: &str, place: usize) {
        let Some(mask) = self.slots.len().checked_sub(1) else { return };
        // Lists are limited to fewer than 2^32 names by what can be read or written.
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let mut at = self.hash(name) as usize & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == 0 {
                *slot = place;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn hash(&self, name: &str) -> u64 {
        self.state.hash_one(name)
    }
}

#[cfg(feature = "std")]
type State = std::hash::RandomState;

#[cfg(not(feature = "std"))]
use keyed::State;

#[cfg(not(feature = "std"))]
mod keyed {
    /// SipHash 2-4 with a key. (Deprecated for what `std` has, which is not at hand here.)
    #[derive(Clone, Debug, Default)]
    pub(crate) struct State(u64);

    impl State {
        pub(super) fn of_address(address: usize) -> Self {
            Self(address as u64)
        }
    }

    #[allow(deprecated)]
    impl core::hash::BuildHasher for State {
        type Hasher = core::hash::SipHasher;

        fn build_hasher(&self) -> Self::Hasher {
            core::hash::SipHasher::new_with_keys(self.0, 0x6767_7566_0000_0003)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    #[test]
    fn finds_each_name_and_no_other() {
        let mut index = NameIndex::default();
        let mut names: Vec<String> = Vec::new();
        for i in 0..3000 {
            let name = format!("blk.{i}.w");
            assert_eq!(index.find(&name, |i| names.get(i).map(|n| &**n)), None);
            index.push(&name, |i| names.get(i).map(|n| &**n));
            names.push(name);
        }
        let all_found = |index: &NameIndex, names: &[String]| {
            for (i, name) in names.iter().enumerate() {
                assert_eq!(index.find(name, |i| names.get(i).map(|n| &**n)), Some(i));
            }
        };
        all_found(&index, &names);
        names.remove(7);
        index.rebuild(names.iter().map(|n| &**n));
        all_found(&index, &names);
        assert_eq!(index.find("blk.7.w", |i| names.get(i).map(|n| &**n)), None);
        assert_eq!(NameIndex::default().find("", |_| None), None);
    }
}
