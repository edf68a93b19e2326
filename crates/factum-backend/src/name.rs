//! Names of stores that are not URLs: which of them are paths, and what was meant by the others.
//!
//! A text that is not a path may hold a password. An error shows such a text only if it is a word
//! that can't be one, or a variable's name.

use std::path::{Component, Path};

use factum_kernel::StoreError;

/// The parts of a text that only the address of a server has.
const OF_ADDRESSES: [&str; 5] = ["@", "://", "password=", "host=", "dbname="];
/// The endings of names that SQLite files have.
const OF_SQLITE: [&str; 4] = ["db", "db3", "sqlite", "sqlite3"];
/// The remedy for an address that is not a URL.
const SAY_URL: &str = "a store on a server is named by a URL that begins with its kind, such as \
                       postgres://user@host/database; percent-encode special characters in the \
                       password";

/// Refuses a path that only a shell can expand. It may be given with `./` before it.
pub(crate) fn check_expanded(path: &str) -> Result<(), StoreError> {
    if path.starts_with('~') {
        return Err(StoreError::invalid(format!(
            "only a shell knows what ~ is, give the whole path, or ./{path} for what has that \
             name: path={path}"
        )));
    }
    if !is_variable(path) {
        return Ok(());
    }
    let named = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "_${}%".contains(c);
    let shown = if path.chars().all(named) { format!(": name={path}") } else { String::new() };
    Err(StoreError::invalid(format!(
        "the store's name is a variable that nothing has replaced by its value: give the value, or \
         let a shell replace it, without single quotes{shown}"
    )))
}

/// Refuses the address of a server in place of the path of a store in files. A path that begins as
/// paths do, such as `./ada@home`, is one.
pub(crate) fn check_not_address(path: &str) -> Result<(), StoreError> {
    if is_address(path) {
        return Err(StoreError::invalid(
            "a store in files has a path and no server's address: say postgres: for a server, or \
             put ./ before a path that looks like an address",
        ));
    }
    Ok(())
}

/// Refuses a text where no store exists, unless it looks like the path of a new folder: it begins
/// with `./`, `../` or `/`, or with a drive.
pub(crate) fn check_new(text: &str) -> Result<(), StoreError> {
    let is_edge = |c: char| c.is_whitespace() || c.is_control() || "'\"`".contains(c);
    if text.starts_with(is_edge) || text.ends_with(is_edge) {
        return Err(StoreError::invalid(
            "the store's name begins or ends with a space, a line break or a quotation mark: \
             remove it",
        ));
    }
    check_expanded(text)?;
    if is_address(text) {
        return Err(StoreError::invalid(SAY_URL));
    }
    let is_plain = is_plainly_path(text);
    let ending = Path::new(text).extension().and_then(|it| it.to_str()).unwrap_or_default();
    if OF_SQLITE.contains(&ending.to_ascii_lowercase().as_str()) && is_word(text) {
        let path = if is_plain { text.to_owned() } else { format!("./{text}") };
        return Err(StoreError::invalid(format!(
            "there is no store at this path; say sqlite:{path} for a new SQLite file, or \
             journal:{path} for a journal in a folder of that name: path={text}"
        )));
    }
    match is_plain {
        true => Ok(()),
        false if is_word(text) => Err(StoreError::invalid(format!(
            "there is no store at this path; check it, or say ./{text} for a new store in that \
             folder: path={text}"
        ))),
        false => Err(StoreError::invalid(
            "the store's name is no path and no URL: say ./ before the path of a new folder, or \
             give a URL such as sqlite:./events.db or postgres://user@host/database",
        )),
    }
}

/// True for a path that begins as only paths do.
fn is_plainly_path(text: &str) -> bool {
    let path = Path::new(text);
    let first = path.components().next();
    let is_here = matches!(first, Some(Component::CurDir | Component::ParentDir));
    is_here || path.has_root() || matches!(first, Some(Component::Prefix(_)))
}

/// True for a text that can be shown: letters, digits and the characters of paths.
fn is_word(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "._-/\\ ".contains(c))
}

fn is_variable(text: &str) -> bool {
    let is_enclosed = text.len() > 2 && text.starts_with('%') && text.ends_with('%');
    text.starts_with('$') || text.starts_with("{{") || is_enclosed
}

/// True for a text with a part that only the address of a server has, unless the text begins as
/// only paths do. Two slashes also begin an address whose scheme was forgotten.
fn is_address(text: &str) -> bool {
    let packed: String = text.split_whitespace().collect::<String>().to_ascii_lowercase();
    let has_part = OF_ADDRESSES.iter().any(|part| packed.contains(part));
    has_part && (text.starts_with("//") || !is_plainly_path(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_where_nothing_exists_is_refused_unless_it_begins_as_paths_do() {
        for (text, meant) in [
            ("host=127.0.0.1 password=s3c", "postgres://user@host/database"),
            ("host = db password = s3c", "postgres://user@host/database"),
            ("ada@db/s3c", "postgres://user@host/database"),
            ("ada:s3c@db:5432/bank", "postgres://user@host/database"),
            ("db.example.org/bank", "say ./db.example.org/bank"),
            ("localhost", "say ./localhost"),
            ("data", "say ./data"),
            ("DATABASE_URL", "say ./DATABASE_URL"),
            ("$DATABASE_URL", "name=$DATABASE_URL"),
            ("${DATABASE_URL}", "a variable that nothing has replaced"),
            ("$s3cret", "a variable that nothing has replaced"),
            ("%DATABASE_URL%", "a variable that nothing has replaced"),
            ("{{ .Values.s3c }}", "a variable that nothing has replaced"),
            ("'./data'", "a quotation mark"),
            ("\"postgres://ada:s3c@db/bank\"", "a quotation mark"),
            (" ./data", "a space"),
            ("./data\n", "a line break"),
            ("~/data", "give the whole path"),
            ("events.db", "say sqlite:./events.db"),
            ("./bank.sqlite", "say sqlite:./bank.sqlite"),
            ("s3c=1;Server=db", "no path and no URL"),
            ("//ada:s3c@db/bank", "postgres://user@host/database"),
            ("//host=db password=s3c", "postgres://user@host/database"),
        ] {
            let refused = check_new(text).unwrap_err().to_string();
            assert!(refused.contains(meant), "{text}: {refused}");
            assert!(!refused.contains("s3c") && !refused.contains('\n'), "{text}: {refused}");
        }
        for path in [
            "./data",
            "../data",
            "/var/data",
            "//var/data",
            ".",
            "..",
            "./a b",
            "/home/ada@db/year=1",
            "/data/host=web1/events",
            "./password=none",
        ] {
            assert!(check_new(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_file_is_not_named_by_the_address_of_a_server() {
        for path in ["ada:s3c@db/bank", "ada@db", "host=db password=s3c", "x://s3c"] {
            let refused = check_not_address(path).unwrap_err().to_string();
            assert!(!refused.contains("s3c"), "{path}: {refused}");
        }
        for path in [
            "events.db",
            "./ada@db",
            "/home/ada@db/x",
            "year=2026/events.db",
            "/data/host=web1/events",
            "./a://password=none",
        ] {
            assert!(check_not_address(path).is_ok(), "{path}");
        }
    }
}
