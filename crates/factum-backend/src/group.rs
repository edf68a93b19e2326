//! The group: the appends that are committed together.

use factum_kernel::AppendBatch;

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
}

impl Load {
    /// The load that a batch adds to a group.
    pub fn of(batch: &AppendBatch) -> Self {
        Self { events: batch.event_count(), bytes: batch.size(), names: batch.name_count() }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            bytes: self.bytes + other.bytes,
            names: self.names + other.names,
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
/// [`GROUP_NAMES_MAX`].
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
    /// The member, if the group is full.
    pub fn push(&mut self, member: M, load: Load) -> Result<(), M> {
        let load = self.load.plus(load);
        if !self.members.is_empty() && load.is_too_much() {
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
                Load { events: 1, bytes: 0, names: 0 },
            ),
            (
                Load { bytes: GROUP_BYTES_MAX, ..Load::default() },
                Load { events: 0, bytes: 1, names: 0 },
            ),
            (
                Load { names: GROUP_NAMES_MAX, ..Load::default() },
                Load { events: 0, bytes: 0, names: 1 },
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
}
