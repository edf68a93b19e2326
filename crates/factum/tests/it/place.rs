//! Names of stores: which text opens which store, and that no other text makes anything.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use factum::{App, ErrorKind, OpenError};

/// Every file and folder below a folder, with the sizes of files.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => {
                found.extend(tree(&path));
                found.insert(path, None);
            }
            false => {
                found.insert(path, entry.metadata().ok().map(|it| it.len()));
            }
        }
    }
    found
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    names.sort();
    names
}

fn text(refused: Result<App, OpenError>, name: &str) -> String {
    let error = refused.map(|_| ()).expect_err(name);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{name}: {error}");
    let text = error.to_string();
    assert!(!text.contains("s3c") && !text.contains('\n'), "{name}: {text}");
    text
}

/// Each of the first three once made a journal in a folder of that name.
#[tokio::test]
async fn a_text_that_is_no_path_makes_nothing_and_the_error_says_what_was_meant() {
    let before = names(Path::new("."));
    for (name, meant) in [
        ("host=127.0.0.1 password=s3c", "postgres://user@host/database"),
        ("$DATABASE_URL", "a variable that nothing has replaced by its value"),
        ("user@host/db", "postgres://user@host/database"),
        ("user:s3c@host/db", "begin a server's address with its kind"),
        ("localhost:5432/db", "begin a server's address with its kind"),
        ("//user:s3c@host/db", "postgres://user@host/database"),
        ("'./data'", "a quotation mark"),
        ("./data\n", "a line break"),
        ("no-such-folder", "say ./no-such-folder"),
        ("no/such/folder", "say ./no/such/folder"),
        ("no-such.db", "say sqlite:./no-such.db"),
        ("./no-such.db", "journal:./no-such.db"),
        ("journal", "a store's URL has a colon"),
        ("postgres", "a store's URL has a colon"),
        ("sqlite:$HOME/events.db", "a variable"),
        ("journal:user:s3c@host/db", "no server's address"),
        ("sqlite://user:s3c@host/db", "no server's address"),
        ("journal:host=127.0.0.1 password=s3c", "no server's address"),
        ("sqlite3:./no-such.db", "scheme=sqlite3"),
    ] {
        for builder in [App::builder(), App::builder().existing()] {
            let said = text(builder.open(name).await, name);
            assert!(said.contains(meant), "{name}: {said}");
        }
    }
    assert_eq!(names(Path::new(".")), before);
}

/// A path that leads to the same folder and begins with a word, as `data/events` does.
fn from_a_word(folder: &Path) -> String {
    let whole = fs::canonicalize(folder).unwrap();
    let here = fs::canonicalize(".").unwrap();
    let up = "/..".repeat(here.components().count());
    format!("src{up}{}", whole.display())
}

#[cfg(any(feature = "journal", feature = "sqlite"))]
#[tokio::test]
async fn an_empty_folder_becomes_a_store_only_if_its_name_begins_as_paths_do() {
    let folder = tempfile::Builder::new().prefix("empty").tempdir().unwrap();
    let word = from_a_word(folder.path());
    let said = text(App::open(&word).await, &word);
    assert!(said.contains(&format!("say ./{word}")), "{said}");
    assert_eq!(names(folder.path()).len(), 0);
    App::open(&format!("./{word}")).await.unwrap().close().await.unwrap();
    // A store is one by that name too.
    App::open(&word).await.unwrap().close().await.unwrap();
}

/// It was once refused as a server's address.
#[cfg(any(feature = "journal", feature = "sqlite"))]
#[tokio::test]
async fn a_store_is_opened_whatever_parts_of_addresses_its_path_holds() {
    let folder = tempfile::Builder::new().prefix("host=ada@db").tempdir().unwrap();
    let whole = folder.path().display().to_string();
    let word = from_a_word(folder.path());
    let names = [whole.clone(), format!("./{word}"), word];
    for name in &names {
        App::open(name).await.unwrap().close().await.unwrap();
    }
    #[cfg(feature = "journal")]
    App::open(&format!("journal:{whole}")).await.unwrap().close().await.unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_project_folder_that_holds_an_events_db_is_not_the_store() {
    let project = tempfile::tempdir().unwrap();
    let folder = project.path().to_str().unwrap();
    let url = format!("sqlite:{folder}/events.db");
    App::open(&url).await.unwrap().close().await.unwrap();
    // Alone in its folder, it is the store that a bare path makes in a program without journals.
    App::open(folder).await.unwrap().close().await.unwrap();
    fs::write(project.path().join("Cargo.toml"), "").unwrap();
    let before = tree(project.path());
    let said = text(App::open(folder).await, folder);
    assert!(said.contains("is no store") && said.contains(&url), "{said}");
    assert_eq!(tree(project.path()), before);
    // Another program's file is no store either.
    fs::write(project.path().join("events.db"), "not a database").unwrap();
    let said = text(App::open(folder).await, folder);
    assert!(said.contains("choose an empty one"), "{said}");
}

/// A journal has a folder `log` before it has anything else.
#[cfg(feature = "journal")]
#[tokio::test]
async fn a_folder_with_the_logs_of_another_program_is_no_journal() {
    let project = tempfile::tempdir().unwrap();
    let folder = project.path().to_str().unwrap();
    fs::create_dir(project.path().join("log")).unwrap();
    fs::write(project.path().join("log/app.log"), "").unwrap();
    let before = tree(project.path());
    for name in [folder.to_owned(), format!("journal:{folder}")] {
        let said = text(App::open(&name).await, &name);
        assert!(said.contains("holds other files"), "{name}: {said}");
    }
    assert_eq!(tree(project.path()), before);
}

#[cfg(all(feature = "journal", feature = "sqlite"))]
#[tokio::test]
async fn nothing_is_made_inside_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("data");
    let shown = journal.display().to_string();
    App::open(&shown).await.unwrap().close().await.unwrap();
    let before = tree(folder.path());
    for (name, expected) in [
        (format!("sqlite:{shown}/events.db"), "inside a journal"),
        (format!("sqlite:{shown}/log/events.db"), "inside a journal"),
        (format!("sqlite:{shown}/new/events.db"), "inside a journal"),
        (format!("sqlite:{shown}"), "the path is a journal"),
        (format!("journal:{shown}/new"), "inside a journal"),
        (format!("{shown}/new"), "inside a journal"),
        (format!("{shown}/log"), "is no store"),
        (format!("journal:{shown}/documents"), "inside a journal"),
    ] {
        let said = text(App::open(&name).await, &name);
        assert!(said.contains(expected), "{name}: {said}");
    }
    assert_eq!(tree(folder.path()), before);
}

/// The other stores are in the tests on PostgreSQL.
#[tokio::test]
async fn existing_opens_what_exists_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let stores = [
        #[cfg(feature = "journal")]
        (format!("journal:{}", path("a/journal")), true),
        #[cfg(feature = "journal")]
        (path("bare"), true),
        #[cfg(feature = "sqlite")]
        (format!("sqlite:{}", path("a/b/events.db")), true),
        ("memory:".into(), false),
    ];
    for (store, is_kept) in stores {
        let by_url = format!("{store}?mode=existing");
        let is_url = store.contains(':');
        let before = tree(folder.path());
        let said = text(App::builder().existing().open(&store).await, &store);
        assert!(said.contains("no store") || said.contains("never exists"), "{said}");
        if is_url {
            text(App::open(&by_url).await, &by_url);
        }
        assert_eq!(tree(folder.path()), before, "{store}");
        App::open(&store).await.unwrap().close().await.unwrap();
        if is_kept {
            App::builder().existing().open(&store).await.unwrap().close().await.unwrap();
        }
        if is_kept && is_url {
            App::open(&by_url).await.unwrap().close().await.unwrap();
        }
    }
}

/// An opening that was ended in the middle leaves an empty file, which is no store yet.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_empty_file_is_no_existing_store_and_becomes_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    fs::write(&file, []).unwrap();
    let url = format!("sqlite:{}", file.display());
    text(App::builder().existing().open(&url).await, &url);
    assert_eq!(fs::metadata(&file).unwrap().len(), 0);
    let folder = folder.path().to_str().unwrap();
    App::open(folder).await.unwrap().close().await.unwrap();
    App::builder().existing().open(&url).await.unwrap().close().await.unwrap();
}

#[cfg(not(feature = "postgres"))]
#[tokio::test]
async fn a_scheme_whose_feature_is_off_is_named_with_the_feature() {
    for url in ["postgres://ada:s3c@db/bank", "postgresql://ada:s3c@db/bank"] {
        let said = text(App::open(url).await, url);
        assert!(said.contains("build it with the feature postgres of factum"), "{said}");
    }
}

/// It once made an empty SQLite file inside the journal.
#[cfg(not(feature = "journal"))]
#[tokio::test]
async fn a_journal_is_left_alone_by_a_program_without_journals() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("factum-journal"), "").unwrap();
    let shown = folder.path().display();
    for name in [shown.to_string(), format!("journal:{shown}")] {
        let said = text(App::open(&name).await, &name);
        assert!(said.contains("the feature journal of factum"), "{name}: {said}");
    }
    let name = format!("sqlite:{shown}/events.db");
    text(App::open(&name).await, &name);
    assert_eq!(names(folder.path()).len(), 1);
}

#[cfg(not(feature = "sqlite"))]
#[tokio::test]
async fn a_program_without_sqlite_names_the_feature() {
    let said = text(App::open("sqlite:./events.db").await, "sqlite:");
    assert!(said.contains("the feature sqlite of factum"), "{said}");
}
