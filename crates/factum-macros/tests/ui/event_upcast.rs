use factum_macros::Event;

#[derive(Event)]
#[event(upcast(from = 1, with = up))]
#[event(upcast(name = "account.opened", from = 1, with = up))]
#[event(upcast(name = "", from = 1, with = up))]
#[event(upcast(name = "account.old", from = 1, with = up))]
#[event(upcast(name = "account.old", from = 1, with = up))]
#[event(upcast(name = "account.older", from = 0, with = up))]
enum AccountEvent {
    #[event(upcast(from = 1, with = up))]
    Opened,
    #[event(schema_version = 3)]
    #[event(upcast(from = 1, with = up))]
    #[event(upcast(from = 1, with = up))]
    #[event(upcast(from = 3, with = up))]
    #[event(upcast(name = "account.paid", from = 2, with = up))]
    Deposited,
    #[event(schema_version = 2, upcast)]
    Bare,
    #[event(schema_version = 2, upcast(from = 1))]
    NoFunction,
    #[event(schema_version = 2, upcast(with = up))]
    NoStart,
    #[event(schema_version = 2, upcast(from = 1, to = 2, with = up))]
    UnknownPart,
    #[event(schema_version = 2, upcast(from = 1, from = 1, with = up))]
    TwoStarts,
}

fn main() {}
