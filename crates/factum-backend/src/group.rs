//! Which appends are committed together.

/// The most events of a group.
pub const GROUP_EVENTS_MAX: usize = 8_192;
/// The most bytes of events of a group.
pub const GROUP_BYTES_MAX: usize = 16 << 20;

/// The appends that gathered while the last group was committed. Takes any first one, and then
/// whatever keeps it within [`GROUP_EVENTS_MAX`] and [`GROUP_BYTES_MAX`].
#[derive(Debug)]
pub struct Group<M> {
    members: Vec<M>,
    events: usize,
    bytes: usize,
}

impl<M> Default for Group<M> {
    fn default() -> Self {
        Self { members: Vec::new(), events: 0, bytes: 0 }
    }
}

impl<M> Group<M> {
    /// Adds a member of so many events and bytes, or gives it back: it belongs to the next group.
    ///
    /// # Errors
    /// The member, when the group is full.
    pub fn push(&mut self, member: M, events: usize, bytes: usize) -> Result<(), M> {
        let (events, bytes) = (self.events + events, self.bytes + bytes);
        if !self.members.is_empty() && (events > GROUP_EVENTS_MAX || bytes > GROUP_BYTES_MAX) {
            return Err(member);
        }
        (self.events, self.bytes) = (events, bytes);
        self.members.push(member);
        Ok(())
    }

    /// How many members it has.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The members, in the order in which they came.
    pub fn into_members(self) -> Vec<M> {
        self.members
    }
}
