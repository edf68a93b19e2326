use factum_macros::Command;

#[derive(Command)]
union Bits {
    cents: u64,
}

#[derive(Command)]
enum NothingCommand {}

#[derive(Command)]
struct Generic<T>(T);

#[derive(Command)]
enum Command {
    Open,
}

#[derive(Command)]
#[command(name = "account", schema_version = 0)]
enum AccountCommand {
    Open,
    #[command(name = "open")]
    Create,
    #[command(prefix = "other")]
    Close,
    #[command(nam = "shut")]
    Shut,
}

#[derive(Command)]
#[command(prefix = "account", name = "")]
struct Open;

#[derive(Command)]
#[command(prefix = "a", prefix = "b", summary)]
struct Close;

fn main() {}
