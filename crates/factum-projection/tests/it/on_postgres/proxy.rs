//! A network between a pool and the server that can fall silent.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::url;

/// Forwards bytes until it is cut. The connections stay open, as they do when a machine loses power
/// or a network is cut.
pub(crate) struct Proxy {
    port: u16,
    /// Connections up to this number are silent.
    silent: Arc<watch::Sender<usize>>,
    /// The number of connections that were made.
    made: Arc<watch::Sender<usize>>,
}

impl Proxy {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = Arc::new(watch::Sender::new(0));
        let made = Arc::new(watch::Sender::new(0_usize));
        let server = url().parse::<PgConnectOptions>().unwrap();
        let server = format!("{}:{}", server.get_host(), server.get_port());
        let from = silent.clone();
        let count = made.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.send_modify(|made| *made += 1);
                let number = *count.borrow();
                tokio::spawn(carry(client, server.clone(), number, from.subscribe()));
            }
        });
        Self { port, silent, made }
    }

    /// The options of a pool through the proxy, with this role.
    pub(crate) fn pool(&self, role: Option<&str>) -> (PgPoolOptions, PgConnectOptions) {
        let server = url().parse::<PgConnectOptions>().unwrap();
        let server = server.host("127.0.0.1").port(self.port);
        let server = match role {
            Some(role) => server.username(role),
            None => server,
        };
        // The time that the pool waits for a connection, which it tests before it hands it out.
        let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(3));
        (pool.max_connections(2), server)
    }

    /// Silences all existing connections. New ones are forwarded.
    pub(crate) fn cut(&self) {
        self.silent.send_replace(*self.made.borrow());
    }

    /// Silences all connections, new ones too.
    pub(crate) fn cut_for_good(&self) {
        self.silent.send_replace(usize::MAX);
    }

    /// Forwards new connections again.
    pub(crate) fn carry_on(&self) {
        self.cut();
    }
}

async fn carry(
    mut client: TcpStream,
    server: String,
    number: usize,
    mut silent: watch::Receiver<usize>,
) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let mut up = [0; 8 << 10];
    let mut down = [0; 8 << 10];
    loop {
        tokio::select! {
            biased;
            // Neither side learns of it.
            () = async { drop(silent.wait_for(|silent| number <= *silent).await) } => {
                std::future::pending::<()>().await;
            }
            read = client.read(&mut up) => match read {
                Ok(read) if read > 0 => server.write_all(&up[..read]).await.unwrap(),
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(read) if read > 0 => {
                    // A client that has left needs no answer.
                    let _ = client.write_all(&down[..read]).await;
                }
                _ => return,
            },
        }
    }
}
