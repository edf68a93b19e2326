//! The bank's customers: their names, the keys of their accounts, and their e-mail addresses.

use std::sync::Arc;

use crate::random::Random;

const FIRST: [&str; 24] = [
    "Ada", "Alan", "Barbara", "Charles", "Dennis", "Donald", "Edsger", "Frances", "Grace", "Hedy",
    "Ivan", "Jean", "John", "Ken", "Leslie", "Lynn", "Margaret", "Niklaus", "Radia", "Robin",
    "Sophie", "Tony", "Wilma", "Zoë",
];
const LAST: [&str; 20] = [
    "Allen", "Bartik", "Conway", "Dijkstra", "Goldberg", "Hamilton", "Hoare", "Hopper", "Kay",
    "Knuth", "Lamarr", "Lamport", "Liskov", "Lovelace", "Milner", "Perlman", "Ritchie", "Shannon",
    "Turing", "Wirth",
];

/// A person with an account, or about to open one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Customer {
    /// The account's key: the name and a number that no other customer has.
    pub(crate) key: Arc<str>,
    /// The whole name.
    pub(crate) owner: String,
}

impl Customer {
    /// Makes a new customer. The caller gives each customer another number.
    pub(crate) fn invent(number: u64, random: &mut Random) -> Self {
        let name = |names: &[&'static str], random: &mut Random| {
            random.pick(names).copied().unwrap_or_default()
        };
        let first = name(&FIRST, random);
        let last = name(&LAST, random);
        let key = format!("{first}-{last}-{number}").to_lowercase().into();
        Self { key, owner: format!("{first} {last}") }
    }
}

/// The number in a key that [`Customer::invent`] made; `None` for another program's account.
pub(crate) fn number(key: &str) -> Option<u64> {
    let mut parts = key.split('-');
    let first = parts.next()?;
    let last = parts.next()?;
    let is_name = |names: &[&str], part: &str| names.iter().any(|n| n.to_lowercase() == part);
    let number = parts.next()?.parse().ok()?;
    (parts.next().is_none() && is_name(&FIRST, first) && is_name(&LAST, last)).then_some(number)
}

/// The e-mail address that belongs to a key. It is a function of the key, so that the address of an
/// existing account need not be read.
pub(crate) fn email(key: &str) -> String {
    format!("{}@example.org", key.replace('-', "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_number_and_strangers_are_left_alone() {
        let mut random = Random::new(1, 1);
        for expected in 1..500 {
            let customer = Customer::invent(expected, &mut random);
            assert_eq!(number(&customer.key), Some(expected), "{}", customer.key);
        }
        for key in ["ada", "ada-7", "ada-lovelace", "ada-lovelace-x", "eve-mallory-7", "a-b-1-2"] {
            assert_eq!(number(key), None, "{key}");
        }
        assert_eq!(email("zoë-kay-7"), "zoë.kay.7@example.org");
    }
}
