use factum_macros::Event;

#[derive(Event)]
struct Deposited {
    cents: u64,
}

#[derive(Event)]
union Bits {
    cents: u64,
}

#[derive(Event)]
enum NothingEvent {}

#[derive(Event)]
enum GenericEvent<T> {
    Deposited(T),
}

#[derive(Event)]
enum BorrowedEvent<'a> {
    Noted(&'a str),
}

#[derive(Event)]
enum ConstantEvent<const N: usize> {
    Noted([u8; N]),
}

#[derive(Event)]
enum SkippedEvent {
    Whole(#[serde(default, skip)] u8),
    Half(#[serde(skip_serializing)] u8),
}

fn main() {}
