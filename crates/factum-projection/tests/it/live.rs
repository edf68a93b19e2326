//! Live states: folded on request.

use factum_kernel::{Matching, Position};
use factum_projection::LiveState;
use factum_testing::bank::AccountEvent;

use crate::bench::Bench;

#[tokio::test]
async fn a_state_is_folded_up_to_now_or_to_a_position() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.open("bob").await;
    let middle = bench.deposits("ada", 40).await;
    bench.deposits("bob", 3_000).await;
    let sum = |sum: &mut u64, event: AccountEvent| {
        if let AccountEvent::Deposited { cents } = event {
            *sum += cents;
        }
    };
    let accounts = || LiveState::of(Matching::events::<AccountEvent>());
    let add = |total: &mut u64, event, _: &_| sum(total, event);
    let now = accounts().fold(&bench.kernel, 0, add).await.unwrap();
    assert_eq!((now.state, now.position), (820 + 4_501_500, bench.head()));
    let then = accounts().until(middle).fold(&bench.kernel, 0, add).await.unwrap();
    assert_eq!((then.state, then.position), (820, middle));
    let none = accounts().until(Position::ZERO).fold(&bench.kernel, 0, add).await.unwrap();
    assert_eq!((none.state, none.position), (0, Position::ZERO));
    let later = Position::new(1_000_000);
    let all = accounts().until(later).fold(&bench.kernel, 0, add).await.unwrap();
    assert_eq!(all, now);
}
