//! TLS, with a server whose certificate belongs to the tests.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use factum_kernel::{EventStore, ReadQuery, StoreErrorKind};
use factum_postgres::{PostgresOptions, PostgresStore};

use crate::{
    fresh::{one, positions},
    instance::{Instance, folder, give},
    server::raw,
};

const ROOT: &str = include_str!("tls/root.pem");
const CERTIFICATE: &str = include_str!("tls/server.pem");
/// The key of a server that exists only in these tests.
const KEY: &str = include_str!("tls/server.key");

#[tokio::test]
async fn what_is_sent_is_encrypted_and_the_server_checked_as_asked() {
    let folder = folder();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        give(&path);
        path
    };
    let certificate = file("server.pem", CERTIFICATE);
    let key = file("server.key", KEY);
    let root = file("root.pem", ROOT);
    let instance = Instance::start(&[
        "ssl=on",
        &format!("ssl_cert_file={}", certificate.display()),
        &format!("ssl_key_file={}", key.display()),
    ]);
    let url = |options: &str| format!("{}?{options}", instance.url());
    let root = format!("sslmode=verify-full&sslrootcert={}", root.display());
    let server = raw(&instance.url()).await;
    let count = "SELECT count(*) FROM pg_stat_ssl AS s JOIN pg_stat_activity AS a USING (pid) \
        WHERE s.ssl AND a.application_name = $1";
    for (n, mode) in
        ["sslmode=prefer", "sslmode=require", &root, "sslmode=disable"].into_iter().enumerate()
    {
        let url = url(&format!("{mode}&application_name=tls{n}"));
        let store = PostgresStore::open(PostgresOptions::parse(&url).unwrap()).await.unwrap();
        store.append(one("ada")).await.unwrap();
        assert_eq!(positions(&store, ReadQuery::log()).await.len(), n + 1);
        let row = server.query_one(count, &[&format!("tls{n}")]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0) > 0, n < 3, "{mode}");
        store.close().await.unwrap();
    }
    // No authority that the system trusts has signed it, and it is not for this name.
    let by_name = url(&root).replace("127.0.0.1", "localhost");
    for refused in [url("sslmode=verify-full"), by_name] {
        let error = PostgresStore::open(PostgresOptions::parse(&refused).unwrap()).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(format!("{error:?}").contains("certificate"), "{error:?}");
    }
    let missing = url("sslmode=verify-full&sslrootcert=nowhere.pem");
    let error = PostgresStore::open(PostgresOptions::parse(&missing).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("sslrootcert: path=nowhere.pem"), "{error}");
}
