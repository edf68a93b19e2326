//! A shop on Factum. The catalogue, the orders, and the sales by day are three read models. The
//! last one is rebuilt while it serves, because its first version counted cancelled orders.
//!
//! `cargo run -p shop` runs in memory, `cargo run -p shop /tmp/shop` in a folder; a second run
//! finds the data of the first.
#![expect(clippy::print_stdout, reason = "an example speaks by printing")]

mod catalogue;
mod order;
mod orders;
mod product;
mod sales;

use std::{
    env,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum::{
    App, Documents, IndexRange, Maintained, ModelQuery, Position, ReadModel, projection::Stale,
};

use crate::{
    catalogue::{Catalogue, Offer},
    order::{Order, OrderCommand},
    orders::{OrderView, Orders},
    product::{Product, ProductCommand},
    sales::{Sales, SalesByDay},
};

/// The longest time that a reader waits for a read model.
const WAIT: Duration = Duration::from_secs(30);

type Problem = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Problem> {
    let store = env::args().nth(1).unwrap_or_else(|| "memory:".into());
    let app = App::open(&store).await?;
    let catalogue = app.project(Catalogue).await?;
    let orders = app.project(Orders).await?;
    let sales = app.project(SalesByDay::<1>).await?;

    let last = fill_the_shelves(&app).await?;
    show_the_catalogue(&catalogue, last).await?;
    let last = sell(&app, &catalogue.read_model()).await?;
    show_the_orders(&orders, last).await?;
    let sales = match sales.serving().version {
        1 => {
            sales.wait_for(last, WAIT).await?;
            show_the_sales("What was sold, by version 1", &sales).await?;
            release(&app, &sales.read_model()).await?
        }
        // An earlier run has released version 2.
        _ => app.project(SalesByDay::<2>).await?,
    };
    show_the_sales("What was sold, by version 2", &sales).await?;
    app.close().await?;
    Ok(())
}

async fn fill_the_shelves(app: &App) -> Result<Position, Problem> {
    let mut last = Position::ZERO;
    for (key, title, shelf, cents) in [
        ("assam", "Assam, 250 g", "tea", 890),
        ("sencha", "Sencha, 100 g", "tea", 1_250),
        ("pot", "A pot for four", "dishes", 3_400),
        ("cup", "A cup", "dishes", 650),
    ] {
        let title = title.into();
        let shelf = shelf.into();
        let listed =
            app.command::<Product>(key, ProductCommand::List { title, shelf, cents }).await?;
        last = last.max(listed.position.unwrap_or_default());
    }
    let repriced =
        app.command::<Product>("sencha", ProductCommand::Reprice { cents: 1_190 }).await?;
    Ok(last.max(repriced.position.unwrap_or_default()))
}

async fn show_the_catalogue(
    catalogue: &Maintained<Documents>,
    last: Position,
) -> Result<(), Problem> {
    catalogue.wait_for(last, WAIT).await?;
    let offers = catalogue.read_model::<Offer>();
    println!("On the shelf of teas");
    let teas = ModelQuery::index("shelf", IndexRange::equal("tea"));
    for (_, offer) in offers.list(teas).await?.documents {
        println!("  {:<16}{:>9}", offer.title, euros(offer.cents));
    }
    println!("For less than ten, the cheapest first");
    let cheap = ModelQuery::index("price", IndexRange::within(..1_000_u64));
    for (_, offer) in offers.list(cheap).await?.documents {
        println!("  {:<16}{:>9}", offer.title, euros(offer.cents));
    }
    Ok(())
}

/// Three days of orders, at the prices of the catalogue.
async fn sell(app: &App, offers: &ReadModel<Offer>) -> Result<Position, Problem> {
    let mut last = Position::ZERO;
    for (key, day, customer, product, pieces) in [
        ("o1", "2026-03-02", "ada", "assam", 2),
        ("o2", "2026-03-02", "bob", "pot", 1),
        ("o3", "2026-03-03", "ada", "cup", 4),
        ("o4", "2026-03-04", "eve", "pot", 9),
        ("o5", "2026-03-04", "bob", "sencha", 1),
    ] {
        let offer = offers.get(product).await?.ok_or("the product is not in the catalogue")?;
        let day = day.into();
        let customer = customer.into();
        let product = product.into();
        let cents = pieces * offer.cents;
        let place = OrderCommand::Place { day, customer, product, pieces, cents };
        let done = app.command::<Order>(key, place).await?;
        last = last.max(done.position.unwrap_or_default());
    }
    for (key, command) in [("o1", OrderCommand::Ship), ("o4", OrderCommand::Cancel)] {
        let done = app.command::<Order>(key, command).await?;
        last = last.max(done.position.unwrap_or_default());
    }
    Ok(last)
}

async fn show_the_orders(orders: &Maintained<Documents>, last: Position) -> Result<(), Problem> {
    let orders = orders.read_model::<OrderView>();
    let _ = orders.wait_for(last, WAIT, Stale::Fail).await?;
    for customer in ["ada", "eve"] {
        println!("What {customer} ordered");
        let theirs = ModelQuery::index("customer", IndexRange::equal(customer));
        for (key, order) in orders.list(theirs).await?.documents {
            let OrderView { title, pieces, cents, state, .. } = order;
            let key = key.trim_start_matches("order/");
            println!("  {key}  {pieces} x {title:<16}{:>9}  {state}", euros(cents));
        }
    }
    Ok(())
}

/// The program's next release: version 2 is built beside version 1, while customers buy and a
/// reader looks at the sales repeatedly.
async fn release(app: &App, sales: &ReadModel<Sales>) -> Result<Maintained<Documents>, Problem> {
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(look_again_and_again(sales.clone(), is_over.clone()));
    let buyer = tokio::spawn(buy(app.clone()));
    let newer = app.project(SalesByDay::<2>).await?;
    if let Some(rebuild) = newer.building() {
        rebuild.done().await?;
    }
    let last = buyer.await??;
    newer.wait_for(last, WAIT).await?;
    is_over.store(true, Ordering::Relaxed);
    let looks = reader.await??;
    println!("Version 2 was built meanwhile");
    println!("  {looks} looks at the sales, none failed, none went back");
    Ok(newer)
}

async fn buy(app: App) -> Result<Position, Problem> {
    let mut last = Position::ZERO;
    for number in 1..=200 {
        let key = format!("late-{number}");
        let place = OrderCommand::Place {
            day: "2026-03-05".into(),
            customer: "zoe".into(),
            product: "cup".into(),
            pieces: 1,
            cents: 650,
        };
        last = app.command::<Order>(&key, place).await?.position.unwrap_or_default();
    }
    Ok(last)
}

/// Counts the reads. The number of orders on the last day never goes down.
async fn look_again_and_again(
    sales: ReadModel<Sales>,
    is_over: Arc<AtomicBool>,
) -> Result<u64, Problem> {
    let mut looks = 0;
    let mut before = 0;
    while !is_over.load(Ordering::Relaxed) {
        let found = sales.get("day/2026-03-05").await?;
        let orders = found.unwrap_or_default().orders;
        if orders < before {
            return Err(format!("there were {before} orders, and now {orders}").into());
        }
        (looks, before) = (looks + 1, orders);
        tokio::task::yield_now().await;
    }
    Ok(looks)
}

async fn show_the_sales(title: &str, sales: &Maintained<Documents>) -> Result<(), Problem> {
    println!("{title}");
    let days = sales.read_model::<Sales>().list(ModelQuery::keys("day/")).await?;
    for (key, Sales { orders, cents }) in days.documents {
        let day = key.trim_start_matches("day/");
        println!("  {day}  {orders:>4} sold {:>9}", euros(cents));
    }
    Ok(())
}

fn euros(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
