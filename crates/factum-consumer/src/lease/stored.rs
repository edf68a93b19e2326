//! The stored form of leases and members: documents under `$lease/`, all read in one scan.

use bytes::Bytes;
use factum_kernel::{DocumentStore, KeyRange, Position, ScanQuery, StoreError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{MemberId, PartitionId, Runs, Seen, SeenMember, host};
use crate::{name::ConsumerName, progress};

const PREFIX: &str = "$lease/";
const MEMBER: &str = "member/";
const PART: &str = "part/";
const BELL: &str = "bell";

/// The heartbeat of a process that runs consumers. It is written regularly: a member whose revision
/// does not change has expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) process: u32,
    /// The id of its host, if it is known.
    pub(crate) machine: Option<String>,
    pub(crate) runs: Runs,
}

/// The lease of a partition that a process works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) owner: MemberId,
}

pub(crate) fn member_key(MemberId(high, low): MemberId) -> Bytes {
    format!("{PREFIX}{MEMBER}{high:016x}{low:016x}").into()
}

pub(crate) fn part_key((group, at): &PartitionId) -> Bytes {
    format!("{PREFIX}{PART}{group}#{at}").into()
}

pub(crate) fn bell_key() -> Bytes {
    format!("{PREFIX}{BELL}").into()
}

/// Reads all members and leases. A document that can't be read belongs to another version of the
/// program, and is skipped.
pub(crate) async fn read(documents: &dyn DocumentStore) -> Result<Seen, StoreError> {
    let mut seen = Seen::default();
    let mut rest = Some(KeyRange::prefix(PREFIX));
    while let Some(range) = rest {
        let page = documents.scan(ScanQuery::new(range)).await?;
        for document in page.documents {
            let key = String::from_utf8_lossy(&document.key).into_owned();
            let Some(key) = key.strip_prefix(PREFIX) else { continue };
            if let Some(id) = key.strip_prefix(MEMBER).and_then(member_id) {
                let Some(member) = decode::<Member>(&document.value) else { continue };
                let has_exited = host::has_exited(member.machine.as_deref(), member.process);
                let revision = document.revision;
                let runs = member.runs;
                seen.members.insert(id, SeenMember { revision, runs, has_exited });
            } else if let Some(part) = key.strip_prefix(PART).and_then(part) {
                let Some(Lease { owner }) = decode(&document.value) else { continue };
                seen.leases.insert(part, (document.revision, owner));
            } else if key == BELL {
                seen.bell = document.revision;
            }
        }
        rest = page.rest;
    }
    Ok(seen)
}

/// The position of a consumer from the heartbeats of its owners: the lowest of its partitions.
/// `None` if a partition has no owner.
pub async fn said_position(
    documents: &dyn DocumentStore,
    group: &ConsumerName,
    partitions: usize,
) -> Result<Option<Position>, StoreError> {
    let seen = read(documents).await?;
    let positions = (0..partitions).map(|at| seen.position(&(group.clone(), at)));
    Ok(positions.min().flatten())
}

fn member_id(text: &str) -> Option<MemberId> {
    let (high, low) = text.split_at_checked(16)?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(MemberId(number(high)?, number(low)?))
}

fn part(text: &str) -> Option<PartitionId> {
    let (group, at) = text.rsplit_once('#')?;
    Some((group.parse().ok()?, at.parse().ok()?))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    progress::decode(bytes).ok()
}
