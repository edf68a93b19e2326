//! An empty crate that keeps sqlx 0.8's SQLite out of the build (`Cargo.toml` explains why).
