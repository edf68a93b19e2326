//! Sales by day.

use factum::{Aggregate, Documents, DocumentsTx, HandleError, Projection, RecordedEvent};
use serde::{Deserialize, Serialize};

use crate::order::{Order, OrderEvent};

/// The sales of a day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sales {
    pub(crate) orders: u64,
    pub(crate) cents: u64,
}

/// The amount and the day of an order, kept in case the order is cancelled or deleted.
#[derive(Debug, Serialize, Deserialize)]
struct Sale {
    day: String,
    cents: u64,
}

/// A document `day/YYYY-MM-DD` for each day.
///
/// Version 1 ignored cancellations; version 2 counts them. A real program has one version, and its
/// next release raises the number; this example contains two releases.
pub(crate) struct SalesByDay<const VERSION: u32>;

impl<const VERSION: u32> Projection for SalesByDay<VERSION> {
    const NAME: &'static str = "sales-by-day";
    const VERSION: u32 = VERSION;
    const CATEGORIES: &[&str] = &[Order::CATEGORY];
    type Event = OrderEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: OrderEvent,
        recorded: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let sale_key = format!("sale/{}", recorded.stream().key());
        match event {
            OrderEvent::Placed { day, cents, .. } => {
                let add =
                    |it: &mut Sales| (it.orders, it.cents) = (it.orders + 1, it.cents + cents);
                documents.update(&format!("day/{day}"), add).await?;
                documents.put(&sale_key, &Sale { day, cents })?;
            }
            OrderEvent::Cancelled if VERSION > 1 => take_back(documents, &sale_key).await?,
            OrderEvent::Cancelled | OrderEvent::Shipped => {}
        }
        Ok(())
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        take_back(documents, &format!("sale/{}", deletion.stream().key())).await
    }
}

/// Takes a sale out of the sales of its day.
async fn take_back(documents: &mut DocumentsTx, sale_key: &str) -> Result<(), HandleError> {
    if let Some(Sale { day, cents }) = documents.get(sale_key).await? {
        let take = |it: &mut Sales| (it.orders, it.cents) = (it.orders - 1, it.cents - cents);
        documents.update(&format!("day/{day}"), take).await?;
        documents.remove(sale_key);
    }
    Ok(())
}
