// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which completion is which entry's, when several entries have the same `user_data`: whoever flips bits in entries can bring that about.
//!
//! A completion that may be of two entries is given to one of them, and moved to the other when that turns out to be needed: the
//! augmenting paths of bipartite matching.

/// Entries and completions of one `user_data`.
#[derive(Debug)]
pub(super) struct Pairing<E, C> {
    pub(super) entries: Vec<E>,
    /// Each with the index of the entry that has it.
    completions: Vec<(C, usize)>,
}

impl<E, C> Default for Pairing<E, C> {
    fn default() -> Self {
        Self { entries: Vec::new(), completions: Vec::new() }
    }
}

impl<E, C> Pairing<E, C> {
    /// A completion came. `false`: there is no entry left for it, however the others are moved.
    pub(super) fn hear(&mut self, completion: C, allows: &impl Fn(&E, &C) -> bool) -> bool {
        self.completions.push((completion, usize::MAX));
        let mut tried = vec![false; self.entries.len()];
        self.place(self.completions.len() - 1, allows, &mut tried)
    }

    /// Finds an entry for a completion; whoever has that gets another.
    fn place(&mut self, completion: usize, allows: &impl Fn(&E, &C) -> bool, tried: &mut [bool]) -> bool {
        for entry in 0..self.entries.len() {
            if tried[entry] || !allows(&self.entries[entry], &self.completions[completion].0) {
                continue;
            }
            tried[entry] = true;
            let holder = self.completions.iter().position(|(_, of)| *of == entry);
            if holder.is_none_or(|holder| self.place(holder, allows, tried)) {
                self.completions[completion].1 = entry;
                return true;
            }
        }
        false
    }

    /// The first entry that must have a completion and cannot get one from those that need none.
    pub(super) fn lacking(&mut self, silent: impl Fn(&E) -> bool, allows: &impl Fn(&E, &C) -> bool) -> Option<&E> {
        let has = |this: &Self, entry| this.completions.iter().any(|(_, of)| *of == entry);
        let lacking = (0..self.entries.len()).find(|entry| {
            let mut tried = vec![false; self.completions.len()];
            !has(self, *entry) && !silent(&self.entries[*entry]) && !self.claim(*entry, &silent, allows, &mut tried)
        });
        lacking.map(|entry| &self.entries[entry])
    }

    /// Takes a completion from an entry that needs none, or that gets another.
    fn claim(
        &mut self,
        entry: usize,
        silent: &impl Fn(&E) -> bool,
        allows: &impl Fn(&E, &C) -> bool,
        tried: &mut [bool],
    ) -> bool {
        for completion in 0..self.completions.len() {
            if tried[completion] || !allows(&self.entries[entry], &self.completions[completion].0) {
                continue;
            }
            tried[completion] = true;
            let holder = self.completions[completion].1;
            if silent(&self.entries[holder]) || self.claim(holder, silent, allows, tried) {
                self.completions[completion].1 = entry;
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Pairing;

    /// Entries are the results they allow; an empty one needs none.
    fn pairing(entries: &[&'static [i32]], completions: &[i32]) -> (bool, bool) {
        let mut pairing = Pairing { entries: entries.to_vec(), completions: Vec::new() };
        let allows = |entry: &&[i32], completion: &i32| entry.contains(completion);
        let heard = completions.iter().all(|completion| pairing.hear(*completion, &allows));
        (heard, heard && pairing.lacking(|entry| entry.contains(&0), &allows).is_none())
    }

    #[test]
    fn completions_are_moved_if_that_helps() {
        assert_eq!(pairing(&[&[1, 2], &[1]], &[1, 2]), (true, true));
        assert_eq!(pairing(&[&[1, 2], &[2, 3], &[3, 1]], &[2, 3, 2]), (true, true));
        assert_eq!(pairing(&[&[1, 2], &[2, 3], &[3, 1]], &[2, 2, 2]), (false, false));
        assert_eq!(pairing(&[&[1, 2], &[2, 3], &[3, 1]], &[2, 1, 3]), (true, true));
        assert_eq!(pairing(&[&[1], &[1]], &[1]), (true, false));
        // The one that may be silent (0) gives its completion up.
        assert_eq!(pairing(&[&[0, 1], &[1]], &[1]), (true, true));
        assert_eq!(pairing(&[&[0, 1], &[1, 2], &[2]], &[1, 2]), (true, true));
        assert_eq!(pairing(&[&[0], &[2]], &[1]), (false, false));
    }
}
