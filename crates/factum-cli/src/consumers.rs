//! What is stored of consumers, and orders for them: `consumers list`, `dead-letters`.

use factum::{
    App, DeadLetter, ReadError, ReadFrom, ReadQuery, Release, StoredConsumer, order_release,
    stored_consumers,
};
use serde_json::{Value, json};

use crate::{
    args::{ConsumersArgs, DeadLettersCommand, LetterArgs, LettersArgs},
    exit::{Exit, Failure},
    number::{counted, grouped, millisecond},
    output::Output,
    place::Place,
};

/// Shows the consumers.
pub(crate) async fn run(args: &ConsumersArgs, out: &mut Output) -> Result<(), Failure> {
    let (place, app) = look_at(&args.store).await?;
    let consumers = stored_consumers(&**app.kernel().documents()).await?;
    let end = ReadQuery::log().backward().with_events_max(1);
    let head = app.kernel().events().read(end).await?.head.value();
    app.close().await?;
    if args.json {
        let consumers: Vec<_> = consumers.iter().map(|it| object(it, head)).collect();
        return out
            .line(json!({ "store": place.to_string(), "head": head, "consumers": consumers }));
    }
    out.line(format_args!("store  {place}, {} in the log", counted(head, "position")))?;
    if consumers.is_empty() {
        return out.line("no consumer keeps its progress here");
    }
    consumers.iter().try_for_each(|consumer| print(consumer, head, out))
}

fn lag(consumer: &StoredConsumer, head: u64) -> u64 {
    head.saturating_sub(position(consumer))
}

fn position(consumer: &StoredConsumer) -> u64 {
    consumer.checkpoint.map_or(0, |it| it.position.value())
}

fn object(consumer: &StoredConsumer, head: u64) -> Value {
    json!({
        "name": consumer.name,
        "position": position(consumer),
        "lag": lag(consumer, head),
        "at_work": consumer.is_at_work,
        "parked": consumer.dead_letters.len(),
        "orders": consumer.orders,
    })
}

fn print(consumer: &StoredConsumer, head: u64, out: &mut Output) -> Result<(), Failure> {
    let name = out.paint().bold(&consumer.name);
    let work = if consumer.is_at_work { "at work" } else { "stopped" };
    let (position, lag) = (grouped(position(consumer)), lag(consumer, head));
    let behind = match lag {
        0 => "at the log's end".into(),
        lag => format!("{} behind", grouped(lag)),
    };
    out.line(format_args!("{name}  {work}, stored at {position}, {behind}"))?;
    if !consumer.dead_letters.is_empty() {
        let parked = counted(consumer.dead_letters.len() as u64, "stream");
        out.line(format_args!("  {}", out.paint().bad(format!("{parked} parked"))))?;
    }
    Ok(())
}

/// Does what was asked for with dead letters.
pub(crate) async fn run_letters(
    command: &DeadLettersCommand,
    out: &mut Output,
) -> Result<(), Failure> {
    match command {
        DeadLettersCommand::List(args) => list(args, out).await,
        DeadLettersCommand::Show(args) => show(args, out).await,
        DeadLettersCommand::Retry(args) => order(args, Release::Retry, out).await,
        DeadLettersCommand::Discard(args) => order(args, Release::Discard, out).await,
    }
}

async fn list(args: &LettersArgs, out: &mut Output) -> Result<(), Failure> {
    let (place, app) = look_at(&args.store).await?;
    let mut consumers = stored_consumers(&**app.kernel().documents()).await?;
    app.close().await?;
    consumers.retain(|it| args.consumer.as_ref().is_none_or(|name| *name == it.name));
    let letters = || {
        let each = |it: &StoredConsumer| it.dead_letters.clone().into_iter();
        consumers.iter().flat_map(move |it| each(it).map(|letter| (it.name.as_str(), letter)))
    };
    if args.json {
        let letters: Vec<_> =
            letters().map(|(name, letter)| letter_object(name, &letter)).collect();
        return out.line(json!({ "store": place.to_string(), "dead_letters": letters }));
    }
    for (name, letter) in letters() {
        print_letter(name, &letter, out)?;
    }
    if letters().next().is_none() { out.line("nothing is parked") } else { Ok(()) }
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
    })
}

fn print_letter(name: &str, letter: &DeadLetter, out: &mut Output) -> Result<(), Failure> {
    let (stream, parked) = (out.paint().bold(&letter.stream), millisecond(letter.parked_at));
    out.line(format_args!("{stream}  of {name}, parked {parked}"))?;
    out.line(format_args!(
        "  {}, version {}, position {}, tried {}: {}",
        letter.event,
        letter.version,
        letter.position,
        counted(letter.attempts.into(), "time"),
        out.paint().bad(&letter.error),
    ))
}

async fn show(args: &LetterArgs, out: &mut Output) -> Result<(), Failure> {
    let (place, app) = look_at(&args.store).await?;
    let consumers = stored_consumers(&**app.kernel().documents()).await?;
    let consumer = consumers.iter().find(|it| it.name == args.consumer);
    let letter = consumer.and_then(|it| it.dead_letters.iter().find(|it| it.stream == args.stream));
    let (Some(consumer), Some(letter)) = (consumer, letter) else {
        let (name, stream) = (&args.consumer, &args.stream);
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
    print_letter(&consumer.name, letter, out)?;
    out.line(format_args!("  {} behind it", counted(blocked, "event")))
}

/// How many events of the stream wait behind the parked one.
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

async fn order(args: &LetterArgs, release: Release, out: &mut Output) -> Result<(), Failure> {
    let place = Place::find(&args.store)?;
    place.check_is_there()?;
    let app = App::open(&args.store).await?;
    let ordered = order_release(app.kernel(), &args.consumer, &args.stream, release).await;
    app.close().await?;
    ordered?;
    let what = if release == Release::Retry { "retry" } else { "discard" };
    let (consumer, stream) = (&args.consumer, args.stream.to_string());
    if args.json {
        let store = place.to_string();
        return out.line(json!({
            "store": store, "consumer": consumer, "stream": stream, "ordered": what,
        }));
    }
    out.line(format_args!("ordered: {what} {stream} of {consumer}"))
}

async fn look_at(store: &str) -> Result<(Place, App), Failure> {
    let place = Place::find(store)?;
    place.check_is_there()?;
    let app = App::open(&place.for_reading()).await?;
    Ok((place, app))
}
