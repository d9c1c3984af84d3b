//! The subscriptions of a topic by name: mostly one, sometimes very many. Knows names and ids only.

use std::sync::Arc;

use ahash::AHashMap;
use smallvec::SmallVec;

use crate::id::HomedId;

/// More than these are looked up in a table.
const FEW_MAX: usize = 8;

#[derive(Debug)]
pub(super) enum Names {
    Few(SmallVec<[(Arc<str>, HomedId); 1]>),
    Many(Box<AHashMap<Arc<str>, HomedId>>),
}

impl Default for Names {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Names {
    pub(super) fn get(&self, name: &str) -> Option<&HomedId> {
        match self {
            Self::Few(few) => {
                let mut found = few.iter().filter(|(known, _)| **known == *name);
                found.next().map(|(_, id)| id)
            }
            Self::Many(many) => many.get(name),
        }
    }

    pub(super) fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Puts the id there, in place of what stood there.
    pub(super) fn insert(&mut self, name: Arc<str>, id: HomedId) -> Option<HomedId> {
        let old = self.remove(&name);
        if let Self::Few(few) = self
            && few.len() == FEW_MAX
        {
            *self = Self::Many(Box::new(few.drain(..).collect()));
        }
        match self {
            Self::Few(few) => few.push((name, id)),
            Self::Many(many) => drop(many.insert(name, id)),
        }
        old
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<HomedId> {
        match self {
            Self::Few(few) => {
                let at = few.iter().position(|(known, _)| **known == *name)?;
                Some(few.swap_remove(at).1)
            }
            Self::Many(many) => many.remove(name),
        }
    }

    /// In any order.
    pub(super) fn ids(&self) -> impl Iterator<Item = HomedId> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few.iter().map(|(_, id)| *id)), None),
            Self::Many(many) => (None, Some(many.values().copied())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::Partition;

    #[test]
    fn few_and_many_are_found_alike() {
        let (mut names, mut model) = (Names::default(), BTreeMap::new());
        for n in 0..400_u64 {
            let name: Arc<str> = format!("sub {}", n * 7 % 23).into();
            let id = HomedId::new(1, Partition(0), n << 20);
            // It grows past the bound between the two, and shrinks again.
            match n % 40 < 25 {
                true => assert_eq!(names.insert(name.clone(), id), model.insert(name, id)),
                false => assert_eq!(names.remove(&name), model.remove(&name)),
            }
            for n in 0..23 {
                let name = format!("sub {n}");
                assert_eq!(names.get(&name), model.get(name.as_str()));
                assert_eq!(names.contains_key(&name), model.contains_key(name.as_str()));
            }
            let mut ids: Vec<HomedId> = names.ids().collect();
            ids.sort_unstable();
            let mut all: Vec<HomedId> = model.values().copied().collect();
            all.sort_unstable();
            assert_eq!(ids, all);
        }
    }
}
