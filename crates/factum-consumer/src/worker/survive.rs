//! A panic in the loop itself, of a target or a store: the next life begins.

use super::{End, Worker, broken};
use crate::{caught::caught, work::Work};

/// After so many panics in a row it stops.
pub const PANICS_MAX: u32 = 10;

impl<W: Work> Worker<W> {
    /// A life, with what is to be done about a panic in it. What is stored is looked at again then,
    /// as after any error whose outcome is not known.
    pub(super) async fn survive(&mut self) -> End {
        let life = async {
            match self.stand_by().await {
                Ok(()) => self.live().await,
                Err(end) => end,
            }
        };
        match caught(life).await {
            Ok(end) => end,
            Err(told) => {
                self.panics += 1;
                let told = format!("the target or the store panicked: {told}");
                if self.panics > PANICS_MAX {
                    return broken(told);
                }
                self.away(told).await
            }
        }
    }
}
