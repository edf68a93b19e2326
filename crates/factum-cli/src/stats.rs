//! `factum stats`: the stats that the applications on a store published last.

use std::time::Duration;

use factum::{
    App, ReadQuery,
    event::Timestamp,
    stats::{PublishedEntity, PublishedKind, PublishedStats, published_stats},
    store::{Clock, SystemClock},
};
use serde_json::{Value, json};

use crate::{
    args::StatsArgs,
    consumers::running::describe,
    effect::Effect,
    exit::Failure,
    number::{self, counted, grouped},
    output::Output,
    place::Place,
};

/// Shows the stats.
pub(crate) async fn run(args: &StatsArgs, effect: Effect, out: &mut Output) -> Result<(), Failure> {
    let place = Place::find(&args.store)?;
    let app = place.open_app(effect).await?;
    let (found, head) = look(&app).await?;
    app.close().await?;
    let now = SystemClock.now();
    if args.json {
        let instances: Vec<_> = found.iter().map(|it| object(it, now)).collect();
        return out
            .line(json!({ "store": place.to_string(), "head": head, "instances": instances }));
    }
    out.line(format_args!("store     {place}, {} in the log", counted(head, "position")))?;
    if found.is_empty() {
        return out.line(
            "no application publishes stats here; to publish them, build the application with \
             AppBuilder::with_stats_every",
        );
    }
    found.iter().try_for_each(|stats| print(stats, now, out))
}

async fn look(app: &App) -> Result<(Vec<PublishedStats>, u64), Failure> {
    let found = published_stats(&**app.kernel().documents()).await?;
    let end = ReadQuery::log().backward().with_events_max(1);
    let page = app.kernel().events().read(end).await?;
    Ok((found, page.head.value()))
}

fn object(stats: &PublishedStats, now: Timestamp) -> Value {
    let mut object = serde_json::to_value(stats).expect("all keys are text");
    object["silent_ms"] = json!(stats.silence(now).as_millis() as u64);
    object["dead"] = json!(stats.is_dead(now));
    object["silent"] = json!(stats.is_silent(now));
    object
}

fn print(stats: &PublishedStats, now: Timestamp, out: &mut Output) -> Result<(), Failure> {
    let title = format!("process {}, instance {}", stats.process, stats.instance);
    out.line(out.paint().bold(title))?;
    let uptime = number::duration(Duration::from_millis(stats.uptime_ms));
    let silence = stats.silence(now);
    let written = number::millisecond(stats.written_at);
    out.line(format_args!("  written   {written}, open for {uptime}"))?;
    if stats.is_silent(now) {
        let silent = format!("nothing published for {}", number::duration(silence));
        out.line(format_args!("  silent    {}", out.paint().bad(silent)))?;
    }
    if stats.kinds.is_empty() {
        out.line("  entities  none")?;
    }
    for kind in &stats.kinds {
        print_kind(kind, out)?;
    }
    // The last state of a silent process must not be taken for the present one.
    let was = if stats.is_silent(now) { "was " } else { "" };
    for worker in &stats.workers {
        let since = number::millisecond(worker.since);
        let restarts = counted(worker.restarts, "restart");
        let cause = worker.cause.as_ref().map(|it| format!(", last {it:?}")).unwrap_or_default();
        let name = &worker.name;
        let state = &worker.state;
        out.line(format_args!(
            "  worker    {name}: {was}{state} since {since}, {restarts}{cause}"
        ))?;
    }
    for consumer in &stats.consumers {
        let described = describe(consumer, out.paint());
        out.line(format_args!("  consumer  {}: {was}{described}", consumer.name))?;
    }
    Ok(())
}

fn print_kind(kind: &PublishedKind, out: &mut Output) -> Result<(), Failure> {
    let name = &kind.category;
    let totals = &kind.totals;
    out.line(format_args!(
        "  entities  {name}: {} active, {} resident, {} quarantined, mailboxes up to {}",
        grouped(totals.active),
        grouped(totals.resident),
        grouped(totals.quarantined),
        grouped(totals.mailbox_high_water),
    ))?;
    out.line(format_args!(
        "  commands  {} processed, {} rejected, {} failed, {}",
        grouped(totals.commands),
        grouped(totals.rejected),
        grouped(totals.failed),
        counted(totals.conflicts, "conflict"),
    ))?;
    for entity in &kind.quarantined_entities {
        let cause = entity.cause.as_deref().unwrap_or("unknown");
        let stream = out.paint().bad(&entity.stream);
        out.line(format_args!("  entity    {stream}: quarantined, {cause}"))?;
    }
    print_listed("heaviest", &kind.heaviest, out)?;
    print_listed("recent", &kind.recent, out)
}

fn print_listed(
    title: &str,
    entities: &[PublishedEntity],
    out: &mut Output,
) -> Result<(), Failure> {
    for entity in entities.iter().take(3) {
        let version = entity.version.map(|it| format!(", version {it}")).unwrap_or_default();
        let weight = entity.weight.map(|it| format!(", {it} B")).unwrap_or_default();
        out.line(format_args!("  {title:<8}  {}{version}{weight}", entity.stream))?;
    }
    Ok(())
}
