//! Store URLs: `scheme:path?option=value`.

use std::{collections::BTreeMap, fmt, path::Path};

use factum_kernel::StoreError;

use crate::{
    name::{check_expanded, check_not_address},
    place::IfAbsent,
};

/// The kind and the place of a store: `memory:`, `sqlite:./events.db`, `postgres://..`.
///
/// ```
/// use factum_backend::StoreUrl;
///
/// let url = StoreUrl::parse("sqlite:./events.db?mode=read").unwrap();
/// assert_eq!((url.scheme(), url.path()), ("sqlite", "./events.db"));
/// assert_eq!(url.option("mode"), Some("read"));
/// assert!(StoreUrl::parse("./data").is_none(), "a path is no URL");
/// ```
///
/// Its text, in messages and in debug output, holds no part of a password: neither the user and the
/// password, nor text that would be one in a correctly written URL.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    scheme: String,
    path: String,
    options: BTreeMap<String, String>,
    /// The path in messages.
    shown: String,
    /// True if the options may hold parts of a password.
    hides_options: bool,
}

/// The mode that writes, and makes no store.
const EXISTING: &str = "existing";
/// The text in place of a hidden part.
const HIDDEN: &str = "***";

impl StoreUrl {
    /// Parses a URL; `None` for a text without a scheme, which is therefore a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        // A single letter is a drive of Windows.
        if scheme.len() < 2 || !scheme.chars().all(is_scheme) {
            return None;
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let options = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        // A `?` in a password is followed by the `@` before the host.
        let shown = shown(path).filter(|_| !query.contains('@'));
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            path: path.into(),
            options: options.map(|(name, value)| (name.into(), value.into())).collect(),
            hides_options: shown.is_none() || query.to_ascii_lowercase().contains("password"),
            shown: shown.unwrap_or(HIDDEN.into()),
        })
    }

    /// The URL of a file or a folder. A relative path that another URL could not hold, because it
    /// looks like a server's address, gets `./` before it.
    ///
    /// ```
    /// use factum_backend::StoreUrl;
    ///
    /// let path = |text: &str| StoreUrl::of_path("journal", text.as_ref()).path().to_owned();
    /// assert_eq!((path("data").as_str(), path("ada@db").as_str()), ("data", "./ada@db"));
    /// ```
    pub fn of_path(scheme: &str, path: &Path) -> Self {
        let path = path.to_string_lossy();
        // In a URL two slashes are not a part of the path. At the root of a path, they mean the
        // same as one.
        let path = match path.strip_prefix("//") {
            Some(rest) => format!("/{}", rest.trim_start_matches('/')),
            None if check_not_address(&path).is_err() => format!("./{path}"),
            None => path.into_owned(),
        };
        let shown = path.clone();
        let options = BTreeMap::new();
        Self { scheme: scheme.into(), path, options, shown, hides_options: false }
    }

    /// The text before the `:`, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The text between the `:` and the `?`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The file or folder, for kinds of store that live in one. `journal://data` means the same as
    /// `journal:data`; the slashes introduce no host here.
    ///
    /// # Errors
    /// `Invalid` for a path that begins with `~` or with a variable. Only a shell expands these,
    /// and `~` only at the start of an argument: in `journal:~/data` the shell leaves it as it is.
    /// `Invalid` as well for the address of a server.
    ///
    /// ```
    /// use factum_backend::StoreUrl;
    ///
    /// let path = |url| StoreUrl::parse(url).unwrap().file_path().map(ToOwned::to_owned);
    /// assert_eq!(path("journal:///var/data").unwrap().to_str(), Some("/var/data"));
    /// assert!(path("journal:~/data").is_err());
    /// ```
    pub fn file_path(&self) -> Result<&Path, StoreError> {
        let path = self.path.strip_prefix("//").unwrap_or(&self.path);
        check_expanded(path)?;
        check_not_address(path)?;
        Ok(Path::new(path))
    }

    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// The access that the option `mode` names: `write`, which is also the default, `existing`,
    /// which is the same except that [nothing is made](Self::if_absent), or one of the others that
    /// the store has.
    ///
    /// # Errors
    /// `Invalid` for another name; the error lists the valid ones.
    ///
    /// ```
    /// use factum_backend::StoreUrl;
    ///
    /// let may_write = |url| StoreUrl::parse(url).unwrap().mode(true, &[("read", false)]);
    /// assert!(may_write("sqlite:events.db").unwrap());
    /// assert!(!may_write("sqlite:events.db?mode=read").unwrap());
    /// assert!(may_write("sqlite:events.db?mode=append").is_err());
    /// ```
    pub fn mode<A: Copy>(&self, write: A, others: &[(&str, A)]) -> Result<A, StoreError> {
        let is_other = |asked: &&str| !["write", EXISTING].contains(asked);
        let Some(asked) = self.option("mode").filter(is_other) else { return Ok(write) };
        if let Some((_, access)) = others.iter().find(|(name, _)| *name == asked) {
            return Ok(*access);
        }
        let names: Vec<_> = others.iter().map(|(name, _)| format!("mode={name}")).collect();
        let names = names.join(", ");
        Err(StoreError::invalid(format!(
            "a store is opened with {names}, mode=existing or mode=write: mode={} url={self}",
            self.shown_option(asked)
        )))
    }

    /// The behaviour if there is no store: that of the opening, or a refusal because of the option
    /// `mode=existing`.
    pub fn if_absent(&self, opening: IfAbsent) -> IfAbsent {
        if self.option("mode") == Some(EXISTING) { IfAbsent::Refuse } else { opening }
    }

    /// The same URL with one more option, or with another value for an option that it has.
    ///
    /// ```
    /// use factum_backend::StoreUrl;
    ///
    /// let url = StoreUrl::of_path("journal", "./why?".as_ref()).with_option("mode", "read");
    /// assert_eq!((url.path(), url.option("mode")), ("./why?", Some("read")));
    /// ```
    #[must_use]
    pub fn with_option(mut self, name: &str, value: &str) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }

    /// The name or the value of an option, in the form for error messages.
    pub fn shown_option<'a>(&self, text: &'a str) -> &'a str {
        if self.hides_options { HIDDEN } else { text }
    }

    /// Refuses options that the store does not have, so that a misspelt one is not ignored.
    ///
    /// # Errors
    /// `Invalid`, with the name and the valid ones.
    pub fn allow_options(&self, known: &[&str]) -> Result<(), StoreError> {
        match self.options.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(_) if self.hides_options => Err(StoreError::invalid(format!(
                "unknown option in the store URL; in a password write %40 for @, %3F for ? and \
                 %26 for &: known={known:?} url={self}"
            ))),
            Some(name) => Err(StoreError::invalid(format!(
                "unknown option in the store URL: option={name} known={known:?} url={self}"
            ))),
        }
    }
}

impl fmt::Display for StoreUrl {
    /// Writes the URL without parts that may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme, self.shown)
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

/// The part of a path that may be shown; `None`: nothing.
fn shown(path: &str) -> Option<String> {
    if path.to_ascii_lowercase().contains("password") {
        return None;
    }
    let Some(place) = path.strip_prefix("//") else {
        // It is a path, or a user, a password and a host that were meant for a URL.
        let is_drive = path.get(1..2) == Some(":") && path.starts_with(char::is_alphabetic);
        let rest = if is_drive { &path[2..] } else { path };
        return (!rest.contains([':', '@'])).then(|| path.into());
    };
    match place.rsplit_once('@') {
        Some((_, place)) => Some(format!("//{place}")),
        // Without an `@`, the text before the slash is a host and a port, or a user and a password
        // whose host was forgotten.
        None => {
            let hosts = place.split('/').next().unwrap_or_default();
            hosts.split(',').all(is_host).then(|| path.into())
        }
    }
}

/// Returns whether the text is a host, with or without a port.
fn is_host(text: &str) -> bool {
    let port = match text.split_once(']') {
        Some((_, port)) => port.strip_prefix(':'),
        None => text.split_once(':').map(|(_, port)| port),
    };
    port.is_none_or(|port| port.parse::<u16>().is_ok())
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
    fn a_url_that_is_not_written_as_it_should_be_shows_no_part_of_a_password() {
        for url in [
            "postgres://ada:s3c?r3t@db/bank",
            "postgres://ada:s3c?r3t=p1n@db/bank",
            "postgres://ada:s3c&r3t@db/bank",
            "postgres://ada:s3c@r3t@db/bank",
            "postgres://ada:s3c/r3t@db/bank",
            "postgres://ada:s3c#r3t@db/bank",
            "postgres://ada:s3c",
            "postgres://ada:s3c?r3t=p1n",
            "postgres://ada:s3c/bank",
            "postgres://db/bank?password=s3c&r3t=p1n",
            "postgres://db/bank?mode=r3t&Password=s3c",
            "postgres:ada:s3c@db/bank",
            "postgres:/ada:s3c@db/bank",
            "postgres:ada:s3c",
            "postgres:host=db password=s3c",
            "postgres:host=db password = s3c",
            "postgres://host=db password=s3c",
            "ada:s3c@db/bank",
        ] {
            let parsed = StoreUrl::parse(url).unwrap();
            let refused = parsed.allow_options(&["mode"]).err();
            let shown = parsed.shown_option(parsed.option("mode").unwrap_or_default());
            let text = format!("{parsed} {parsed:?} {shown} {refused:?}");
            for secret in ["s3c", "r3t", "p1n"] {
                assert!(!text.contains(secret), "{url}: {text}");
            }
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for url in [
            "postgres://db/bank",
            "postgres://db:5432,[::1]:5433,[fe80::1]/bank",
            "sqlite:./year=2026/events.db",
            "sqlite:C:\\data\\events.db",
            "journal:",
            "memory:",
        ] {
            assert_eq!(StoreUrl::parse(url).unwrap().to_string(), url);
        }
        let path = Path::new("/home/ada@db/a:b");
        assert_eq!(StoreUrl::of_path("journal", path).to_string(), "journal:/home/ada@db/a:b");
    }

    #[test]
    fn paths_are_no_urls() {
        for path in ["./data", "/var/data", "data", "C:\\data", "a b:c", ""] {
            assert_eq!(StoreUrl::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_home_is_refused_with_the_remedy_and_a_name_that_begins_so_is_a_name() {
        for url in ["journal:~/data", "journal://~/data", "journal:~", "journal:~ada/data"] {
            let refused = StoreUrl::parse(url).unwrap().file_path().unwrap_err().to_string();
            assert!(refused.contains("give the whole path, or ./~"), "{url}: {refused}");
        }
        let named = StoreUrl::parse("journal:./~/data").unwrap();
        assert_eq!(named.file_path().unwrap(), Path::new("./~/data"));
    }

    /// In a URL two slashes before the path are not a part of it.
    #[test]
    fn an_absolute_path_stays_one_however_many_slashes_it_begins_with() {
        for path in ["/var/data", "//var/data", "///var/data"] {
            let url = StoreUrl::of_path("journal", Path::new(path));
            assert_eq!(url.file_path().unwrap(), Path::new("/var/data"), "{path}");
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
