//! `factum bench append`.

use std::sync::Arc;

use factum::{EventStore, ReadQuery, store::SystemClock};

use crate::{
    args::AppendArgs,
    bench::{
        durability,
        load::{CATEGORY, Load},
        report::Reading,
        sync_policy,
    },
    effect::Effect,
    exit::{Exit, Failure},
    interrupt::Interrupt,
    number::{self, counted},
    output::{Notes, Output},
    place::Place,
    progress::Progress,
};

/// Measures appends and prints the result.
pub(crate) async fn run(
    args: &AppendArgs,
    effect: Effect,
    out: &mut Output,
) -> Result<(), Failure> {
    let place = Place::find(&args.store)?;
    let stores = place.open(effect, Arc::new(SystemClock)).await?;
    if !args.into_existing
        && let Err(failure) = check_is_ours(&*stores.events, &place).await
    {
        stores.events.close().await?;
        return Err(failure);
    }
    let claimed = stores.events.guarantees().durability;
    let before = place.disk_bytes();
    let notes = if args.json { Notes::None } else { out.notes() };
    let progress = Progress::start(notes, "appending", "event", args.load.events);
    let load = Load::new(stores.events.clone(), args.load.clone(), progress, Interrupt::listen());
    let loaded = load.run().await;
    // Close before measuring the disk, so that the store has finished moving its data.
    stores.events.close().await?;
    let loaded = loaded?;
    let grown = place.disk_bytes().zip(before).map(|(after, before)| after.saturating_sub(before));
    let load = &args.load;
    let reading = Reading {
        bench: "append",
        store: place.to_string(),
        clients: load.clients,
        events: load.events,
        batch: Some(load.batch),
        payload_bytes: Some(load.payload_bytes),
        streams: Some(load.streams),
        durability: Some(durability(claimed)),
        bytes_per_event: grown.and_then(|bytes| number::ratio(bytes, load.events)),
        ..Reading::of(load.events, loaded.elapsed, &loaded.latencies)
    };
    if args.json {
        return reading.print_json(out);
    }
    let work = [
        format!("store     {place}, {}", sync_policy(claimed)),
        format!(
            "clients   {}, each with one append of {} in flight",
            number::grouped(load.clients),
            counted(load.batch, "event"),
        ),
        format!(
            "events    {} with {} of random payload, in {}",
            number::grouped(load.events),
            counted(load.payload_bytes, "byte"),
            counted(load.streams, "stream"),
        ),
    ];
    reading.print(out, "bench append", &work, "append")
}

/// Refuses a log that holds events of other programs: the benchmark's events could never be removed
/// from it.
async fn check_is_ours(store: &dyn EventStore, place: &Place) -> Result<(), Failure> {
    // The two ends of the log are enough, and a large log would take long to read: a benchmark's
    // event comes after those of other programs only with --into-existing.
    for query in [ReadQuery::log(), ReadQuery::log().backward()] {
        let page = store.read(query).await?;
        let foreign = page.events.iter().find(|event| event.stream().category() != CATEGORY);
        if let Some(event) = foreign {
            let text = format!(
                "the log holds events of other programs, name another store or add \
                 --into-existing: stream={} store={place}",
                event.stream()
            );
            return Err(Failure::new(Exit::Usage, text));
        }
    }
    Ok(())
}
