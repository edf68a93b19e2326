//! `factum read`: prints events, one per line, at once or as they come.

mod line;
mod source;
mod value;

use std::{future::poll_fn, pin::pin, task::Poll};

use factum::{
    App, RecordedEvent,
    event::Tag,
    read::{Query, QueryItem, ReadError, Scope},
};

use crate::{
    args::{HashedTag, ReadArgs},
    effect::Effect,
    exit::{Exit, Failure},
    interrupt::Interrupt,
    output::{self, Output},
    place::Place,
    read::source::Source,
};

/// Prints the events that the command line selects.
pub(crate) async fn run(args: &ReadArgs, effect: Effect, out: &mut Output) -> Result<(), Failure> {
    let app = Place::find(&args.store)?.open_app(effect).await?;
    let interrupt = Interrupt::listen();
    let ended = tokio::select! {
        ended = print(&app, args, out) => ended,
        failure = interrupt.wait("reading was interrupted") => Err(failure),
    };
    // The events printed before an error are still useful.
    let flushed = out.flush();
    app.close().await?;
    ended.and(flushed)
}

fn scope(app: &App, args: &ReadArgs) -> Result<Scope, Failure> {
    if let Some(stream) = &args.stream {
        return Ok(Scope::Stream(stream.clone()));
    }
    if let Some(category) = &args.category {
        return Ok(Scope::Category(category.clone()));
    }
    let types = args.types.clone();
    let mut tags = args.tags.clone();
    for tag in &args.hashed_tags {
        tags.push(hashed(app, tag)?);
    }
    if tags.is_empty() && types.is_empty() {
        return Ok(Scope::Log);
    }
    Ok(Scope::Query(Query::new([QueryItem { types, tags }])))
}

fn hashed(app: &App, tag: &HashedTag) -> Result<Tag, Failure> {
    let Some(key) = app.kernel().tag_key() else {
        let text = "the application has a tag key of its own, use --tag with the stored hash";
        return Err(Failure::new(Exit::Usage, text));
    };
    let hashed = key.hashed(&tag.name, &tag.value);
    hashed.map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

async fn print(app: &App, args: &ReadArgs, out: &mut Output) -> Result<(), Failure> {
    let mut source = Source::new(app, scope(app, args)?, args);
    let most = args.limit.unwrap_or(u64::MAX);
    let mut left = most;
    while left > 0 {
        let Some(event) = next(&mut source, out).await? else { break };
        let event = event?;
        let line = match args.json {
            true => line::json(&event),
            false => line::text(&event, out.paint(), out.width()),
        };
        out.line(line)?;
        left -= 1;
    }
    if left == most && !args.json {
        // Without this note, a misspelt name would look like one without events.
        output::note(out.notes(), "no events");
    }
    Ok(())
}

/// Returns the next event. Before it waits for one, it flushes the output: a reader of the output
/// sees each page at once, and a page still costs one write.
async fn next(
    source: &mut Source,
    out: &mut Output,
) -> Result<Option<Result<RecordedEvent, ReadError>>, Failure> {
    let mut event = pin!(source.next());
    let ready = poll_fn(|cx| match event.as_mut().poll(cx) {
        Poll::Ready(event) => Poll::Ready(Some(event)),
        Poll::Pending => Poll::Ready(None),
    });
    if let Some(event) = ready.await {
        return Ok(event);
    }
    out.flush()?;
    Ok(event.await)
}
