//! Orders as customers see them, with the title of the product.

use factum::{
    Aggregate, Documents, DocumentsTx, Event, HandleError, Index, Projection, RecordedEvent,
};
use serde::{Deserialize, Serialize};

use crate::{
    order::{Order, OrderEvent},
    product::{Product, ProductEvent},
};

/// All events of the shop.
#[derive(Debug, Event)]
#[event(flatten)]
pub(crate) enum ShopEvent {
    Product(ProductEvent),
    Order(OrderEvent),
}

/// An order as its customer sees it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct OrderView {
    pub(crate) customer: String,
    pub(crate) title: String,
    pub(crate) pieces: u64,
    pub(crate) cents: u64,
    pub(crate) state: String,
}

/// Documents of two kinds: `order/KEY` for readers, and `title/KEY` for the projection itself.
pub(crate) struct Orders;

impl Projection for Orders {
    const NAME: &'static str = "orders";
    const CATEGORIES: &[&str] = &[Product::CATEGORY, Order::CATEGORY];
    type Event = ShopEvent;
    type Target = Documents;

    fn declare(&self, documents: Documents) -> Documents {
        let customer = |order: &OrderView| [order.customer.as_str().into()];
        documents.with_index(Index::new("customer", customer).for_keys("order/"))
    }

    async fn project(
        &self,
        event: ShopEvent,
        recorded: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let key = recorded.stream().key();
        match event {
            ShopEvent::Product(ProductEvent::Listed { title, .. }) => {
                documents.put(&format!("title/{key}"), &title)
            }
            ShopEvent::Product(ProductEvent::Repriced { .. }) => Ok(()),
            ShopEvent::Order(OrderEvent::Placed { customer, product, pieces, cents, .. }) => {
                let title = documents.get(&format!("title/{product}")).await?.unwrap_or(product);
                let state = "placed".into();
                let order = OrderView { customer, title, pieces, cents, state };
                documents.put(&format!("order/{key}"), &order)
            }
            ShopEvent::Order(OrderEvent::Shipped) => set_state(documents, key, "shipped").await,
            ShopEvent::Order(OrderEvent::Cancelled) => set_state(documents, key, "cancelled").await,
        }
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let stream = deletion.stream();
        let kind = if stream.category() == Order::CATEGORY { "order" } else { "title" };
        documents.remove(&format!("{kind}/{}", stream.key()));
        Ok(())
    }
}

async fn set_state(documents: &mut DocumentsTx, key: &str, state: &str) -> Result<(), HandleError> {
    let set = |order: &mut OrderView| order.state = state.into();
    documents.update(&format!("order/{key}"), set).await
}
