//! Pages and appends use the indexes, at a size where that matters.

use factum_kernel::EventStore;
use tokio_postgres::Client;

use crate::fresh::{Fresh, tagged};

/// 200,000 events in 20,000 streams of 20 categories, of 10 types, every tenth with a rare tag
/// and all others with a frequent one.
const FILL: &str = "
    INSERT INTO events SELECT p, 1 + (p - 1) / 20000, p, 1, gen_random_uuid(), 1,
        'category' || p % 20 || '-' || p % 20000, 'type.' || p % 10, '', '', 'payload'
        FROM generate_series(1, 200000) AS p;
    INSERT INTO event_tags SELECT CASE WHEN p % 10 = 0 THEN 'rare:1' ELSE 'frequent:1' END, p
        FROM generate_series(1, 200000) AS p;
    INSERT INTO event_tags SELECT 'needle:1', p FROM generate_series(1000, 200000, 50000) AS p;
    INSERT INTO erased SELECT 200000 + 2 * p, 200000 + 2 * p FROM generate_series(1, 1000) AS p;";

/// Each question, and the most blocks that it may touch: a page of 10 events from any beginning, or
/// a group.
const QUESTIONS: &[(&str, i64)] = &[
    ("log_page(2, 100000, true, 10, 1000000)", 80),
    ("log_page(1, 0, false, 10, 1000000)", 80),
    ("log_page(4, 150000, true, 10, 1000000)", 300),
    ("stream_page('category7-7', 0, 0, true, 10, 1000000)", 100),
    ("stream_page('category7-7', 2, 100000, false, 10, 1000000)", 150),
    ("stream_info('category7-7')", 60),
    ("category_page('category3', 2, 150000, true, 10, 1000000)", 100),
    ("category_page('category3', 1, 0, false, 10, 1000000)", 100),
    ("query_page('{1}', '{0}', '{type.3}', '{}', 2, 190000, true, 10, 1000000)", 120),
    ("query_page('{0}', '{1}', '{}', '{rare:1}', 2, 190000, true, 10, 1000000)", 120),
    ("query_page('{0}', '{1}', '{}', '{rare:1}', 1, 0, false, 10, 1000000)", 120),
    ("query_page('{0}', '{2}', '{}', '{frequent:1,needle:1}', 0, 0, true, 10, 1000000)", 200),
    ("query_page('{1}', '{1}', '{type.0}', '{needle:1}', 0, 0, true, 10, 1000000)", 200),
    ("query_page('{2}', '{0}', '{type.1,type.2}', '{}', 2, 190000, true, 10, 1000000)", 150),
    ("next_match('{}', '{needle:1}', 1, true, 1000)", 40),
    (CONDITIONS, 150),
];

/// 256 members without events, each with a condition of four items of the same ten types and a tag
/// of its own, after the last event.
const CONDITIONS: &str = "append(1000, 0, 0, 202000, '{}', '{}', '{}', '{}', '{}', '{}',
    ARRAY(SELECT generate_series(1, 256)), array_fill(200000::bigint, ARRAY[256]),
    array_fill(4, ARRAY[256]), array_fill(10, ARRAY[1024]), array_fill(1, ARRAY[1024]),
    ARRAY(SELECT 'type.' || n % 10 FROM generate_series(1, 10240) AS n),
    ARRAY(SELECT 'frequent:1' FROM generate_series(1, 1024)),
    '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')";

/// The blocks that a call touches, in all statements inside of it.
async fn blocks(server: &Client, call: &str) -> i64 {
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING off) SELECT * FROM {call}");
    let rows = server.query(&explain, &[]).await.unwrap();
    let line = rows.iter().map(|row| row.get::<_, String>(0)).find(|it| it.contains("Buffers:"));
    let line = line.unwrap_or_default();
    let number = |word: &str| -> i64 {
        let rest = line.split(word).nth(1).unwrap_or("0");
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap_or(0)
    };
    number("hit=") + number("read=")
}

#[tokio::test]
async fn pages_touch_few_blocks_of_a_large_log() {
    let fresh = Fresh::open().await;
    let server = fresh.schema.raw().await;
    server.batch_execute(&format!("SET search_path = {}", fresh.schema.name)).await.unwrap();
    // A session whose plans were made while the log was empty, and are kept.
    for _ in 0..7 {
        for (call, _) in QUESTIONS {
            blocks(&server, call).await;
        }
    }
    fresh.run(FILL).await;
    let other = fresh.schema.raw().await;
    other.batch_execute(&format!("SET search_path = {}", fresh.schema.name)).await.unwrap();
    for analyzed in [false, true] {
        if analyzed {
            fresh.run("ANALYZE").await;
        }
        for (call, most) in QUESTIONS {
            for session in [&server, &other] {
                // Twice: the first call of a session also reads the catalogue.
                blocks(session, call).await;
                let touched = blocks(session, call).await;
                assert!(touched > 0, "the plan of {call} could not be read");
                assert!(touched <= *most, "{call} touches {touched} blocks, analyzed={analyzed}");
            }
        }
    }
}

#[tokio::test]
async fn appends_touch_few_blocks_of_a_large_log() {
    let fresh = Fresh::open().await;
    for _ in 0..7 {
        fresh.store.append(tagged("ada", &["a:1"])).await.unwrap();
    }
    fresh.run(&FILL.replace("generate_series(1, 200000)", "generate_series(8, 200000)")).await;
    let server = fresh.schema.raw().await;
    let scanned = "SELECT coalesce(sum(seq_tup_read), 0)::bigint, sum(n_tup_ins)::bigint \
        FROM pg_stat_user_tables WHERE schemaname = $1 AND relname <> 'log'";
    for _ in 0..20 {
        fresh.store.append(tagged("ada", &["a:1", "b:2"])).await.unwrap();
    }
    fresh.store.close().await.unwrap();
    // The writer's work is counted once its session has ended.
    loop {
        let row = server.query_one(scanned, &[&fresh.schema.name]).await.unwrap();
        if row.get::<_, i64>(1) >= 400_000 + 7 * 2 + 20 * 3 - 20 {
            let read: i64 = row.get(0);
            assert!(read < 200_000, "appends went through {read} rows without an index");
            break;
        }
        tokio::task::yield_now().await;
    }
}
