//! Nothing: no SQLite by way of sqlx 0.8 (`Cargo.toml` says why).
