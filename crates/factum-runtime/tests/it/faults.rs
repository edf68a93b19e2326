//! A bank's day through entities on a store that loses requests and replies.

use factum_kernel::RetryPolicy;
use factum_runtime::{Entities, EntityOptions};
use factum_testing::{
    FaultRates,
    bank::{Account, AccountCommand},
};

use crate::bench::{Bench, DEPOSIT, open, options};

const KEYS: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_rough_store_loses_doubles_and_reorders_nothing() {
    for seed in 0..20 {
        let bench = Bench::rough(seed, FaultRates::rough());
        let patient = RetryPolicy::new().with_conflicts_max(10_000).with_repeats_max(100);
        let repository = factum_kernel::Repository::<Account>::new(bench.kernel.clone());
        let snapshots = factum_kernel::SnapshotPolicy::every_events(7).with_kept(2);
        let repository = repository.with_retry(patient).with_snapshots(snapshots).unwrap();
        // Few entities fit into memory, and another set of entities writes to the same streams.
        let small: EntityOptions = options().with_weight_max(64 * 700);
        let banks = [(); 2].map(|()| Entities::new(repository.clone(), small));
        for key in 0..KEYS {
            let key = key.to_string();
            banks[0].ask(&key, open(&key)).await.unwrap();
        }
        let clerks = (0..8_u64).map(|clerk| {
            let bank = banks[clerk as usize % 2].clone();
            tokio::spawn(async move {
                let mut sum = 0_i64;
                for n in 0..20 {
                    let key = ((clerk + n) % KEYS).to_string();
                    if n % 3 == 2 {
                        match bank.ask(&key, AccountCommand::Withdraw { cents: 1 }).await {
                            Ok(_) => sum -= 1,
                            Err(error) => assert!(error.rejection().is_some(), "{error}"),
                        }
                    } else {
                        bank.ask(&key, DEPOSIT).await.unwrap();
                        sum += 1;
                    }
                }
                sum
            })
        });
        let mut sum = 0;
        for clerk in clerks.collect::<Vec<_>>() {
            sum += clerk.await.unwrap();
        }
        let mut balance = 0;
        for key in 0..KEYS {
            balance += bench.balance(&key.to_string()).await.0 as i64;
        }
        assert_eq!(balance, sum, "seed {seed}");
        bench.history.check_store(&*bench.store).await.unwrap();
    }
}
