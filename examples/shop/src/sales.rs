//! Sales by day.

use factum::{Documents, DocumentsTx, HandleError, Projection, RecordedEvent};
use serde::{Deserialize, Serialize};

use crate::order::OrderEvent;

/// The sales of a day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sales {
    pub(crate) orders: u64,
    pub(crate) cents: u64,
}

/// The amount and the day of an order, kept in case the order is cancelled.
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
                if VERSION > 1 {
                    documents.put(&sale_key, &Sale { day, cents })?;
                }
            }
            OrderEvent::Cancelled if VERSION > 1 => {
                if let Some(Sale { day, cents }) = documents.get(&sale_key).await? {
                    let take =
                        |it: &mut Sales| (it.orders, it.cents) = (it.orders - 1, it.cents - cents);
                    documents.update(&format!("day/{day}"), take).await?;
                    documents.remove(&sale_key);
                }
            }
            OrderEvent::Cancelled | OrderEvent::Shipped => {}
        }
        Ok(())
    }
}
