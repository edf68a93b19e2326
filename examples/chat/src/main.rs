//! A chat on Factum: rooms are running aggregates, screens follow the event bus, and a read model
//! counts each member's unread messages.
//!
//! `cargo run -p chat` runs in memory, `cargo run -p chat /tmp/chat` in a folder; a second run
//! continues there.
#![expect(clippy::print_stdout, reason = "an example speaks by printing")]

mod room;
mod unread;

use std::{env, error::Error, time::Duration};

use factum::{
    App, Documents, EventBus, Maintained, ModelQuery, Position, SendError, consumer::BusError,
    projection::Stale, sentence,
};

use crate::{
    room::{Room, RoomCommand, RoomEvent, RoomRejection},
    unread::Unread,
};

/// The longest time that a reader waits for the counts to have a message.
const WAIT: Duration = Duration::from_secs(30);

type Problem = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Problem> {
    let store = env::args().nth(1).unwrap_or_else(|| "memory:".into());
    let app = App::open(&store).await?;
    let unread = app.project(Unread).await?;
    for (who, room) in
        [("ada", "lobby"), ("bob", "lobby"), ("eve", "lobby"), ("ada", "tea"), ("bob", "tea")]
    {
        app.command::<Room>(room, RoomCommand::Join { who: who.into() }).await?;
    }

    let last = talk(&app).await?;
    println!("Unread");
    for who in ["ada", "bob", "eve"] {
        show_unread(&unread, who, last).await?;
    }
    eve_reads(&app, &unread).await?;
    app.close().await?;
    Ok(())
}

/// Bob's screen follows the lobby, and Ada answers as soon as she sees a question.
async fn talk(app: &App) -> Result<Position, Problem> {
    // Both see all messages from here on.
    let screen = tokio::spawn(follow(app.events(), "lobby"));
    let ada = tokio::spawn(answer(app.events(), app.clone()));
    say(app, "tea", "ada", "the kettle is on").await?;
    say(app, "lobby", "bob", "is anybody here?").await?;
    let answered = ada.await??;
    let last = say(app, "lobby", "bob", "bye").await?;
    println!("On bob's screen");
    for line in screen.await?? {
        println!("  {line}");
    }
    let refused = say(app, "tea", "eve", "may I come in?").await;
    println!("Eve in the tea room\n  {}", refused.map_or_else(|no| sentence(&no), |_| "ok".into()));
    Ok(last.max(answered))
}

/// Collects the messages of a room as they come, until a member says good bye.
async fn follow(mut events: EventBus<RoomEvent>, room: &str) -> Result<Vec<String>, BusError> {
    let mut lines = Vec::new();
    loop {
        let (event, recorded) = events.next().await?;
        if recorded.stream().key() != room {
            continue;
        }
        if let RoomEvent::Said { who, text, .. } = event {
            lines.push(format!("{room} | {who}: {text}"));
            if text == "bye" {
                return Ok(lines);
            }
        }
    }
}

/// Waits for a question, and answers it in its room.
async fn answer(mut events: EventBus<RoomEvent>, app: App) -> Result<Position, Problem> {
    loop {
        let (event, recorded) = events.next().await?;
        if let RoomEvent::Said { who, text, .. } = event
            && text.ends_with('?')
        {
            let answer = format!("I am, {who}");
            return Ok(say(&app, recorded.stream().key(), "ada", &answer).await?);
        }
    }
}

async fn say(
    app: &App,
    room: &str,
    who: &str,
    text: &str,
) -> Result<Position, SendError<RoomRejection>> {
    let say = RoomCommand::Say { who: who.into(), text: text.into() };
    let said = app.command::<Room>(room, say).await?;
    Ok(said.position.unwrap_or_default())
}

/// Shows the counts after they contain everything up to a position, so that members see their own
/// messages counted.
async fn show_unread(
    unread: &Maintained<Documents>,
    who: &str,
    seen: Position,
) -> Result<(), Problem> {
    let counts = unread.read_model::<u64>();
    let _ = counts.wait_for(seen, WAIT, Stale::Fail).await?;
    let prefix = format!("unread/{who}/");
    let found = counts.list(ModelQuery::keys(&prefix)).await?;
    let each =
        found.documents.iter().map(|(key, count)| format!("{} {count}", &key[prefix.len()..]));
    println!("  {who}: {}", each.collect::<Vec<_>>().join(", "));
    Ok(())
}

/// Eve reads, and her count shows it at once.
async fn eve_reads(app: &App, unread: &Maintained<Documents>) -> Result<(), Problem> {
    let last = app.aggregate::<Room>().look("lobby", |room, _| room.last).await?;
    let read = RoomCommand::Read { who: "eve".into(), through: last };
    let read = app.command::<Room>("lobby", read).await?;
    println!("Eve reads");
    show_unread(unread, "eve", read.position.unwrap_or_default()).await
}
