//! The number of unread messages of each member of each room.

use std::collections::BTreeSet;

use factum::{Aggregate, Documents, DocumentsTx, HandleError, Projection, RecordedEvent};
use serde::{Deserialize, Serialize};

use crate::room::{Room, RoomEvent};

/// The members of a room and the number of its messages: a document `room/ROOM`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Present {
    members: BTreeSet<String>,
    last: u64,
}

/// A count under `unread/WHO/ROOM` for each member of each room. A member who says something has
/// read everything before it.
pub(crate) struct Unread;

impl Projection for Unread {
    const NAME: &'static str = "unread";
    const CATEGORIES: &[&str] = &[Room::CATEGORY];
    type Event = RoomEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: RoomEvent,
        recorded: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let room = recorded.stream().key();
        let present_key = format!("room/{room}");
        let mut present: Present = documents.get(&present_key).await?.unwrap_or_default();
        match event {
            RoomEvent::Joined { who } => {
                documents.put(&key(&who, room), &0_u64)?;
                present.members.insert(who);
            }
            RoomEvent::Said { who, number, .. } => {
                present.last = number;
                for member in &present.members {
                    let is_own = *member == who;
                    let count = |it: &mut u64| *it = if is_own { 0 } else { *it + 1 };
                    documents.update(&key(member, room), count).await?;
                }
            }
            RoomEvent::Read { who, through } => {
                documents.put(&key(&who, room), &present.last.saturating_sub(through))?;
            }
        }
        documents.put(&present_key, &present)
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let room = deletion.stream().key();
        let present_key = format!("room/{room}");
        let present: Present = documents.get(&present_key).await?.unwrap_or_default();
        for member in &present.members {
            documents.remove(&key(member, room));
        }
        documents.remove(&present_key);
        Ok(())
    }
}

fn key(who: &str, room: &str) -> String {
    format!("unread/{who}/{room}")
}
