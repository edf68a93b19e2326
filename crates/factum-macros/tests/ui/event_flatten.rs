use factum_macros::Event;

#[derive(Event)]
#[event(crate = factum_kernel)]
enum OrderEvent {
    Placed,
}

#[derive(Event)]
#[event(flatten, prefix = "shop", codec = factum_kernel::Json)]
enum ShopEvent {
    Order(OrderEvent),
    Again(OrderEvent),
    #[event(name = "payment")]
    Payment(#[event(tag)] OrderEvent),
    Closed,
    Pair(OrderEvent, OrderEvent),
    Named {
        order: OrderEvent,
    },
}

#[derive(Event)]
#[event(flatten)]
enum EmptyEvent {}

#[derive(Event)]
#[event(flatten)]
enum GenericEvent<T> {
    Inner(T),
}

fn main() {}
