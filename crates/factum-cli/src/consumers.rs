//! `consumers list` and `dead-letters`: the stored state of consumers, the stats that running ones
//! publish, and orders for them.

pub(crate) mod running;

use std::{collections::BTreeMap, time::Duration};

use factum::{
    App, ReadQuery,
    consumer::{
        DeadLetter, Release, StoredConsumer, StoredLag, order_release, stored_consumers, stored_lag,
    },
    event::Timestamp,
    read::{ReadError, ReadFrom},
    stats::published_stats,
    store::{Clock, SystemClock},
};
use serde_json::{Value, json};

use crate::{
    args::{ConsumersArgs, DeadLettersCommand, LetterArgs, LettersArgs},
    effect::Effect,
    exit::{Exit, Failure},
    number::{age, counted, grouped, millisecond},
    output::Output,
    place::Place,
};
use running::Running;

/// A consumer's stored state, if there is any, and its state in each process that publishes stats.
#[derive(Default)]
struct Seen<'a> {
    stored: Option<Stored<'a>>,
    running: Vec<Running<'a>>,
}

struct Stored<'a> {
    consumer: &'a StoredConsumer,
    lag: StoredLag,
}

/// Shows the consumers of a store.
pub(crate) async fn run(
    args: &ConsumersArgs,
    effect: Effect,
    out: &mut Output,
) -> Result<(), Failure> {
    let (place, app) = open(&args.store, effect).await?;
    let documents = &**app.kernel().documents();
    let stored = stored_consumers(documents).await?;
    let published = published_stats(documents).await?;
    let now = SystemClock.now();
    let end = ReadQuery::log().backward().with_events_max(1);
    let head = app.kernel().events().read(end).await?.head.value();
    let mut seen = BTreeMap::<&str, Seen<'_>>::new();
    for consumer in &stored {
        let lag = stored_lag(&**app.kernel().events(), consumer).await?;
        seen.entry(&consumer.name).or_default().stored = Some(Stored { consumer, lag });
    }
    app.close().await?;
    for mut running in running::all(&published, now) {
        let seen = seen.entry(&running.consumer.name).or_default();
        if let Some(stored) = &seen.stored {
            running.compare(stored.consumer);
        }
        seen.running.push(running);
    }
    if args.json {
        let consumers: Vec<_> = seen.iter().map(|(name, it)| object(name, it, now)).collect();
        return out
            .line(json!({ "store": place.to_string(), "head": head, "consumers": consumers }));
    }
    out.line(format_args!("store  {place}, {} in the log", counted(head, "position")))?;
    if seen.is_empty() {
        return out.line("no consumer keeps its progress here");
    }
    seen.iter().try_for_each(|(name, it)| print(name, it, now, out))
}

/// The age of the first event that a consumer has still to handle.
fn late(since: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    #[expect(clippy::disallowed_methods, reason = "the age of what is stored")]
    let age = |since| now.saturating_since(since);
    since.map(age)
}

fn object(name: &str, seen: &Seen<'_>, now: Timestamp) -> Value {
    let running: Vec<_> = seen.running.iter().map(|it| it.object(now)).collect();
    let mut object = match (&seen.stored, seen.running.iter().max_by_key(|it| it.order(now))) {
        (Some(Stored { consumer, lag }), _) => json!({
            "position": consumer.position().value(),
            "lag": match lag {
                StoredLag::Behind { events, .. } => Some(events),
                _ => None,
            },
            "lag_ms": match lag {
                StoredLag::Behind { since, .. } => {
                    late(*since, now).map(|late| late.as_millis() as u64)
                }
                _ => None,
            },
            "diverged": match lag {
                StoredLag::Diverged(diverged) => Some(diverged.to_string()),
                _ => None,
            },
            "at_work": consumer.is_at_work,
            "died": consumer.has_died,
            "process": consumer.process,
            "parked": consumer.parked(),
            "waiting": consumer.waiting(),
            "orders": consumer.orders,
        }),
        // Its progress is in another database, so only its published stats are known.
        (None, Some(it)) => json!({
            "position": it.consumer.position,
            "lag": it.consumer.lag_events(),
            "lag_ms": it.consumer.lag_ms,
            "diverged": null,
            "at_work": seen.running.iter().any(|it| it.is_at_work(now)),
            "died": false,
            "process": it.process(),
            "parked": it.consumer.parked,
            "waiting": it.consumer.waiting,
            "orders": 0,
        }),
        (None, None) => json!({}),
    };
    object["name"] = json!(name);
    object["stored"] = json!(seen.stored.is_some());
    object["running"] = json!(running);
    object
}

fn print(name: &str, seen: &Seen<'_>, now: Timestamp, out: &mut Output) -> Result<(), Failure> {
    let name = out.paint().bold(name);
    match &seen.stored {
        Some(stored) => print_stored(&name, stored, now, out)?,
        None => out.line(format_args!("{name}  keeps its progress elsewhere"))?,
    }
    for running in &seen.running {
        out.line(format_args!("  {}", running.line(now, out.paint())))?;
    }
    Ok(())
}

fn print_stored(
    name: &str,
    Stored { consumer, lag }: &Stored<'_>,
    now: Timestamp,
    out: &mut Output,
) -> Result<(), Failure> {
    let work = match (consumer.is_at_work, consumer.process) {
        (true, _) => "at work".into(),
        (false, Some(process)) if consumer.has_died => {
            out.paint().bad(format!("its process {process} has died"))
        }
        (false, _) => "stopped".into(),
    };
    let behind = match lag {
        StoredLag::Behind { events: 0, .. } => "nothing to handle".into(),
        StoredLag::Behind { events, since } => {
            let late = late(*since, now).map(|late| format!(" ({})", age(late)));
            format!("{} behind{}", counted(*events, "event"), late.unwrap_or_default())
        }
        StoredLag::Diverged(diverged) => out.paint().bad(format!("diverged: {diverged}")),
        _ => "lag unknown".into(),
    };
    let position = grouped(consumer.position().value());
    out.line(format_args!("{name}  {work}, stored at {position}, {behind}"))?;
    if consumer.parked() > 0 {
        let parked = counted(consumer.parked() as u64, "stream");
        out.line(format_args!("  {}", out.paint().bad(format!("{parked} parked"))))?;
    }
    if consumer.waiting() > 0 {
        out.line(format_args!("  {}", out.paint().bad(waiting(consumer.waiting()))))?;
    }
    Ok(())
}

/// The number of streams that wait for a program that can read them, as a sentence.
fn waiting(streams: usize) -> String {
    let verb = if streams == 1 { "waits" } else { "wait" };
    format!(
        "{} {verb} for a program that can read the next event",
        counted(streams as u64, "stream")
    )
}

/// Runs a command for dead letters.
pub(crate) async fn run_letters(
    command: &DeadLettersCommand,
    effect: Effect,
    out: &mut Output,
) -> Result<(), Failure> {
    match command {
        DeadLettersCommand::List(args) => list(args, effect, out).await,
        DeadLettersCommand::Show(args) => show(args, effect, out).await,
        DeadLettersCommand::Retry(args) => order(args, effect, Release::Retry, out).await,
        DeadLettersCommand::Discard(args) => order(args, effect, Release::Discard, out).await,
    }
}

async fn list(args: &LettersArgs, effect: Effect, out: &mut Output) -> Result<(), Failure> {
    let (place, app) = open(&args.store, effect).await?;
    let mut consumers = stored_consumers(&**app.kernel().documents()).await?;
    app.close().await?;
    consumers.retain(|it| args.consumer.as_ref().is_none_or(|name| it.is_of(name)));
    let letters = || {
        let each = |it: &StoredConsumer| it.dead_letters.clone().into_iter();
        consumers.iter().flat_map(move |it| each(it).map(|letter| (it.name.as_str(), letter)))
    };
    if args.json {
        let letters: Vec<_> =
            letters().map(|(name, letter)| letter_object(name, &letter)).collect();
        return out.line(json!({ "store": place.to_string(), "dead_letters": letters }));
    }
    let unread = letters().filter(|(_, letter)| letter.is_unread).count();
    let parked = match letters().count() - unread {
        0 => "nothing is parked".into(),
        count => format!("{} parked", counted(count as u64, "stream")),
    };
    let unread = if unread > 0 { format!(", {}", waiting(unread)) } else { String::new() };
    out.line(format_args!("store  {place}, {parked}{unread}"))?;
    letters().try_for_each(|(name, letter)| print_letter(name, &letter, out))
}

fn letter_object(consumer: &str, letter: &DeadLetter) -> Value {
    json!({
        "consumer": consumer,
        "stream": letter.stream.to_string(),
        "version": letter.version.value(),
        "position": letter.position.value(),
        "event": letter.event,
        "error": letter.error,
        "attempts": letter.attempts,
        "parked_at": letter.parked_at.to_string(),
        "unread": letter.is_unread,
    })
}

fn print_letter(name: &str, letter: &DeadLetter, out: &mut Output) -> Result<(), Failure> {
    let stream = out.paint().bold(&letter.stream);
    let since = millisecond(letter.parked_at);
    if letter.is_unread {
        out.line(format_args!("{stream}  of {name}, waits for a reader since {since}"))?;
        let DeadLetter { event, version, position, .. } = letter;
        let error = out.paint().bad(&letter.error);
        out.line(format_args!("  {event}, version {version}, position {position}: {error}"))?;
        return out.line(
            "  start a program that knows the event's type at this schema version: it tries the \
             event first",
        );
    }
    out.line(format_args!("{stream}  of {name}, parked {since}"))?;
    out.line(format_args!(
        "  {}, version {}, position {}, tried {}: {}",
        letter.event,
        letter.version,
        letter.position,
        counted(letter.attempts.into(), "time"),
        out.paint().bad(&letter.error),
    ))
}

async fn show(args: &LetterArgs, effect: Effect, out: &mut Output) -> Result<(), Failure> {
    let (place, app) = open(&args.store, effect).await?;
    let consumers = stored_consumers(&**app.kernel().documents()).await?;
    let mut letters = consumers.iter().filter(|it| it.is_of(&args.consumer)).filter_map(|it| {
        let letter = it.dead_letters.iter().find(|letter| letter.stream == args.stream);
        letter.map(|letter| (it, letter))
    });
    let Some((consumer, letter)) = letters.next() else {
        let name = &args.consumer;
        let stream = &args.stream;
        let text = format!("nothing of this stream is parked: consumer={name} stream={stream}");
        return Err(Failure::new(Exit::Usage, text));
    };
    let blocked = blocked(&app, letter).await?;
    app.close().await?;
    if args.json {
        let mut object = letter_object(&consumer.name, letter);
        object["store"] = json!(place.to_string());
        object["blocked"] = json!(blocked);
        return out.line(object);
    }
    out.line(format_args!("store  {place}"))?;
    print_letter(&consumer.name, letter, out)?;
    out.line(format_args!("  waiting: {} of the stream", counted(blocked, "event")))
}

/// The number of events in the stream after the parked one.
async fn blocked(app: &App, letter: &DeadLetter) -> Result<u64, Failure> {
    let from = ReadFrom::Version(letter.version.next());
    let mut events = app.read(ReadQuery::stream(letter.stream.clone()).from(from));
    let mut count = 0;
    while let Some(event) = events.next().await {
        event.map_err(ReadError::into_store_error)?;
        count += 1;
    }
    Ok(count)
}

async fn order(
    args: &LetterArgs,
    effect: Effect,
    release: Release,
    out: &mut Output,
) -> Result<(), Failure> {
    let (place, app) = open(&args.store, effect).await?;
    let ordered = order_release(app.kernel(), &args.consumer, &args.stream, release).await;
    app.close().await?;
    ordered?;
    let what = if release == Release::Retry { "retry" } else { "discard" };
    let consumer = &args.consumer;
    let stream = args.stream.to_string();
    if args.json {
        let store = place.to_string();
        return out.line(json!({
            "store": store, "consumer": consumer, "stream": stream, "ordered": what,
        }));
    }
    out.line(format_args!("ordered: {what} {stream} of {consumer}, store={place}"))
}

async fn open(store: &str, effect: Effect) -> Result<(Place, App), Failure> {
    let place = Place::find(store)?;
    let app = place.open_app(effect).await?;
    Ok((place, app))
}
