//! The group: the appends that are committed together.

use factum_kernel::AppendBatch;

use crate::plan::ends_group;

/// The most events of a group.
pub const GROUP_EVENTS_MAX: usize = 8_192;
/// The most bytes of events of a group.
pub const GROUP_BYTES_MAX: usize = 16 << 20;
/// The most types and tags in the conditions of a group. Each costs a look into an index while
/// other writers wait.
pub const GROUP_NAMES_MAX: usize = 65_536;

/// The measures of a group's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// The number of events.
    pub events: usize,
    /// The bytes of the events and of the rest of the batch, as [`AppendBatch::size`] counts.
    pub bytes: usize,
    /// The number of types and tags in conditions, as [`AppendBatch::name_count`] counts.
    pub names: usize,
    /// True if no other batch may come after it in its group; see
    /// [`ends_group`](crate::ends_group).
    pub is_last: bool,
}

impl Load {
    /// The load that a batch adds to a group.
    pub fn of(batch: &AppendBatch) -> Self {
        Self {
            events: batch.event_count(),
            bytes: batch.size(),
            names: batch.name_count(),
            is_last: ends_group(batch),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            bytes: self.bytes + other.bytes,
            names: self.names + other.names,
            is_last: other.is_last,
        }
    }

    fn is_too_much(self) -> bool {
        self.events > GROUP_EVENTS_MAX
            || self.bytes > GROUP_BYTES_MAX
            || self.names > GROUP_NAMES_MAX
    }
}

/// The appends that gathered while the last group was committed. It takes any first member, and
/// then each member that keeps it within [`GROUP_EVENTS_MAX`], [`GROUP_BYTES_MAX`] and
/// [`GROUP_NAMES_MAX`]. After a member with a deletion it takes no other.
#[derive(Debug)]
pub struct Group<M> {
    members: Vec<M>,
    load: Load,
}

impl<M> Default for Group<M> {
    fn default() -> Self {
        Self { members: Vec::new(), load: Load::default() }
    }
}

impl<M> Group<M> {
    /// Adds a member, or returns it: then it belongs to the next group.
    ///
    /// # Errors
    /// The member, if the group is full or over.
    pub fn push(&mut self, member: M, load: Load) -> Result<(), M> {
        let is_over = self.load.is_last;
        let load = self.load.plus(load);
        if !self.members.is_empty() && (is_over || load.is_too_much()) {
            return Err(member);
        }
        self.load = load;
        self.members.push(member);
        Ok(())
    }

    /// The number of members.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The members, in the order of their arrival.
    pub(crate) fn into_members(self) -> Vec<M> {
        self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_full_by_events_by_bytes_or_by_names() {
        for (most, little) in [
            (
                Load { events: GROUP_EVENTS_MAX, ..Load::default() },
                Load { events: 1, ..Load::default() },
            ),
            (
                Load { bytes: GROUP_BYTES_MAX, ..Load::default() },
                Load { bytes: 1, ..Load::default() },
            ),
            (
                Load { names: GROUP_NAMES_MAX, ..Load::default() },
                Load { names: 1, ..Load::default() },
            ),
        ] {
            let mut group = Group::default();
            assert_eq!(group.push("first", most.plus(little)), Ok(()), "any first one");
            assert_eq!(group.push("next", Load::default()), Err("next"));
            let mut group = Group::default();
            assert_eq!(group.push("first", most), Ok(()));
            assert_eq!(group.push("nothing", Load::default()), Ok(()));
            assert_eq!(group.push("a little", little), Err("a little"), "{most:?}");
            assert_eq!(group.into_members(), ["first", "nothing"]);
        }
    }

    #[test]
    fn a_deletion_is_the_last_of_its_group() {
        let mut group = Group::default();
        let one = Load { events: 1, ..Load::default() };
        let deletion = Load { is_last: true, ..one };
        assert_eq!(group.push("first", one), Ok(()));
        assert_eq!(group.push("deletion", deletion), Ok(()));
        assert_eq!(group.push("next", one), Err("next"));
        assert_eq!(group.into_members(), ["first", "deletion"]);
    }
}
