//! The catalogue: the products with their shelves and prices.

use factum::{Aggregate, Documents, DocumentsTx, HandleError, Index, Projection, RecordedEvent};
use serde::{Deserialize, Serialize};

use crate::product::{Product, ProductEvent};

/// A product in the catalogue.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) title: String,
    pub(crate) shelf: String,
    pub(crate) cents: u64,
}

/// A document for each product, under its key, with indexes by shelf and by price.
pub(crate) struct Catalogue;

impl Projection for Catalogue {
    const NAME: &'static str = "catalogue";
    const CATEGORIES: &[&str] = &[Product::CATEGORY];
    type Event = ProductEvent;
    type Target = Documents;

    fn declare(&self, documents: Documents) -> Documents {
        documents
            .with_index(Index::new("shelf", |offer: &Offer| [offer.shelf.as_str().into()]))
            .with_index(Index::new("price", |offer: &Offer| [offer.cents.into()]))
    }

    async fn project(
        &self,
        event: ProductEvent,
        recorded: &RecordedEvent,
        offers: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let key = recorded.stream().key();
        match event {
            ProductEvent::Listed { title, shelf, cents } => {
                offers.put(key, &Offer { title, shelf, cents })
            }
            ProductEvent::Repriced { cents } => {
                offers.update(key, |offer: &mut Offer| offer.cents = cents).await
            }
        }
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        offers: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        offers.remove(deletion.stream().key());
        Ok(())
    }
}
