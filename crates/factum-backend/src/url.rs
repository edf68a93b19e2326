//! Store URLs: `scheme:path?option=value`.

use std::{collections::BTreeMap, fmt};

use factum_core::StoreError;

/// Which store, and where: `memory:`, `sqlite:./events.db`, `postgres://..`.
///
/// ```
/// use factum_backend::StoreUrl;
///
/// let url = StoreUrl::parse("sqlite:./events.db?mode=read").unwrap();
/// assert_eq!((url.scheme(), url.path()), ("sqlite", "./events.db"));
/// assert_eq!(url.option("mode"), Some("read"));
/// assert!(StoreUrl::parse("./data").is_none(), "a path is no URL");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    scheme: String,
    path: String,
    options: BTreeMap<String, String>,
}

impl StoreUrl {
    /// Reads a URL; `None` for what has no scheme and is therefore a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        // One letter is a drive of Windows'.
        if scheme.len() < 2 || !scheme.chars().all(is_scheme) {
            return None;
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let options = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            path: path.into(),
            options: options.map(|(name, value)| (name.into(), value.into())).collect(),
        })
    }

    /// The URL of a file or folder.
    pub fn of_path(scheme: &str, path: &std::path::Path) -> Self {
        let path = path.to_string_lossy().into_owned();
        Self { scheme: scheme.into(), path, options: BTreeMap::new() }
    }

    /// What is before the `:`, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What is between the `:` and the `?`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// Refuses options that the store does not have, so that a misspelt one is not ignored.
    ///
    /// # Errors
    /// `Invalid`, with the name and those there are.
    pub fn allow_options(&self, known: &[&str]) -> Result<(), StoreError> {
        match self.options.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(StoreError::invalid(format!(
                "unknown option in the store URL: option={name} known={known:?} url={self}"
            ))),
        }
    }
}

impl fmt::Display for StoreUrl {
    /// The URL without what may be secret: user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match (self.path.strip_prefix("//"), self.path.rfind('@')) {
            (Some(_), Some(at)) => format!("//{}", &self.path[at + 1..]),
            _ => self.path.clone(),
        };
        write!(f, "{}:{path}", self.scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        let url = StoreUrl::parse("Postgres://ada:secret@db.example.org/bank?password=x").unwrap();
        assert_eq!(url.to_string(), "postgres://db.example.org/bank");
        assert_eq!(url.path(), "//ada:secret@db.example.org/bank");
    }

    #[test]
    fn paths_are_no_urls() {
        for path in ["./data", "/var/data", "data", "C:\\data", "a b:c", ""] {
            assert_eq!(StoreUrl::parse(path), None, "{path}");
        }
    }

    #[test]
    fn an_unknown_option_is_refused_by_its_name() {
        let url = StoreUrl::parse("sqlite:events.db?mod=read&mode=read").unwrap();
        assert!(url.allow_options(&["mod", "mode"]).is_ok());
        let refused = url.allow_options(&["mode"]).unwrap_err().to_string();
        assert!(refused.contains("option=mod "), "{refused}");
    }
}
