//! The shares of the members in a consumer's partitions. Pure: every member computes the same
//! result.

use std::collections::BTreeSet;

use super::MemberId;

/// Assigns each partition to a member, given the current owners. The shares differ by one at most,
/// and as few partitions as possible move.
pub(crate) fn shares(
    owners: &[Option<MemberId>],
    members: &BTreeSet<MemberId>,
) -> Vec<Option<MemberId>> {
    let has = |member: MemberId| owners.iter().filter(|owner| **owner == Some(member)).count();
    // A member that has more partitions keeps the larger share.
    let mut members: Vec<_> = members.iter().map(|member| (has(*member), *member)).collect();
    members.sort_by_key(|(count, member)| (std::cmp::Reverse(*count), *member));
    let (fair, larger) = match members.len() {
        0 => return vec![None; owners.len()],
        count => (owners.len() / count, owners.len() % count),
    };
    let mut left: Vec<_> =
        (0..members.len()).map(|at| (members[at].1, fair + usize::from(at < larger))).collect();
    let mut shares = vec![None; owners.len()];
    for (share, owner) in shares.iter_mut().zip(owners) {
        let place = left.iter_mut().find(|(member, left)| Some(*member) == *owner && *left > 0);
        if let Some((member, left)) = place {
            *left -= 1;
            *share = Some(*member);
        }
    }
    for share in shares.iter_mut().filter(|share| share.is_none()) {
        let (member, left) =
            left.iter_mut().find(|(_, left)| *left > 0).expect("the shares add up");
        *left -= 1;
        *share = Some(*member);
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(id: u64) -> MemberId {
        MemberId(id, 0)
    }

    proptest! {
        #[test]
        fn shares_are_even_and_move_no_more_than_they_must(
            owners in prop::collection::vec(prop::option::of(0_u64..6), 1..40),
            members in prop::collection::btree_set(0_u64..6, 1..6),
        ) {
            let owners: Vec<_> = owners.into_iter().map(|it| it.map(member)).collect();
            let members: BTreeSet<_> = members.into_iter().map(member).collect();
            let shares = shares(&owners, &members);
            let count = |of| shares.iter().filter(|share| **share == Some(of)).count();
            let counts: Vec<_> = members.iter().map(|it| count(*it)).collect();
            prop_assert_eq!(counts.iter().sum::<usize>(), owners.len());
            let min = counts.iter().min().unwrap();
            let max = counts.iter().max().unwrap();
            prop_assert!(max - min <= 1, "{:?}", counts);
            // A present member loses only partitions beyond its share.
            for it in &members {
                let had = owners.iter().filter(|owner| **owner == Some(*it)).count();
                let kept = owners.iter().zip(&shares);
                let kept = kept.filter(|(had, has)| had == has && **has == Some(*it)).count();
                prop_assert_eq!(kept, had.min(count(*it)));
            }
            prop_assert_eq!(super::shares(&shares, &members), shares);
        }
    }

    #[test]
    fn one_partition_stays_where_it_is() {
        let members = BTreeSet::from([member(1), member(2)]);
        assert_eq!(shares(&[Some(member(2))], &members), [Some(member(2))]);
        assert_eq!(shares(&[None], &members), [Some(member(1))]);
    }
}
