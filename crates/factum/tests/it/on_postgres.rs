//! On PostgreSQL. `cargo xtask test` starts a server; `--only embedded` leaves this out.

use std::sync::{Arc, Mutex};

use tokio_postgres::NoTls;

use crate::{
    instance::Instance,
    outage::{WAYS, hasty, is_outlasted},
    readme::runs_and_goes_on,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_example_runs_and_goes_on_when_run_again() {
    let server = std::env::var("FACTUM_POSTGRES_URL").unwrap_or_else(|_| {
        panic!(
            "no PostgreSQL server to test on: run `cargo xtask test`, which starts one, or set \
             FACTUM_POSTGRES_URL=postgres://user@host:port/database"
        )
    });
    let schema = format!("readme_{}", std::process::id());
    let folder = tempfile::tempdir().unwrap();
    let url = format!("{server}?schema={schema}");
    let run =
        tokio::task::spawn_blocking(move || runs_and_goes_on(folder.path(), Some(&url))).await;
    let (client, connection) = tokio_postgres::connect(&server, NoTls).await.unwrap();
    tokio::spawn(connection);
    let count = format!("SELECT count(*) FROM {schema}.events WHERE stream = 'account-ada'");
    let count = client.query_one(&count, &[]).await;
    client.batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await.unwrap();
    run.unwrap();
    assert_eq!(count.unwrap().get::<_, i64>(0), 4, "opened, twice paid in, once paid out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_for_long_is_no_attempt_by_any_way_to_an_aggregate() {
    let instance = Arc::new(Mutex::new(Instance::start(&[])));
    for (number, way) in WAYS.into_iter().enumerate() {
        let url = instance.lock().unwrap().url();
        let app = hasty().open(&format!("{url}?schema=outage{number}")).await.unwrap();
        let killed = instance.clone();
        let go_away = move || killed.lock().unwrap().kill();
        is_outlasted(&app, way, go_away, || instance.lock().unwrap().restart()).await;
    }
}
