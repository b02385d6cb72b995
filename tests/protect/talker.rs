//! A client of `/talk`: says numbers at its pace, hears answers and pushes, and looks at each number.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::common::TIMEOUT;

/// The counts of all talkers.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Answers and pushes.
    pub(crate) heard: AtomicU64,
    /// Numbers that were not as they should be.
    pub(crate) wrong: AtomicU64,
    /// Sessions that the other end has ended.
    pub(crate) cut: AtomicU64,
    /// Sessions that went on in another worker, each time.
    pub(crate) recovered: AtomicU64,
    /// Nothing new is sent.
    pub(crate) over: AtomicBool,
}

/// One client, and what it does again and again.
#[derive(Clone, Debug)]
pub(crate) struct Talker {
    pub(crate) source: IpAddr,
    pub(crate) server: SocketAddr,
    pub(crate) query: String,
    pub(crate) pace: Duration,
    pub(crate) stats: Arc<Stats>,
}

impl Talker {
    /// Talks until all is over, over as many sessions as it takes.
    pub(crate) async fn talk(self) {
        while !self.stats.over.load(Ordering::Relaxed) {
            let socket = timeout(TIMEOUT, self.connect()).await.expect("a worker takes it");
            // Its worker was killed before it was answered.
            let Ok(socket) = socket else { continue };
            if self.converse(socket).await.is_err() {
                self.stats.cut.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn connect(&self) -> Result<WebSocketStream<TcpStream>, Error> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let stream = socket.connect(self.server).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{}/talk?{}", self.server, self.query);
        Ok(tokio_tungstenite::client_async(url, stream).await?.0)
    }

    /// Until all is over and answered; an error if the other end has ended it.
    async fn converse(&self, mut socket: WebSocketStream<TcpStream>) -> Result<(), ()> {
        let mut turns = interval(self.pace);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut said, mut answered, mut pushed, mut workers) = (0_u64, 0, 0, 1);
        while !self.stats.over.load(Ordering::Relaxed) || answered < said {
            tokio::select! {
                heard = timeout(TIMEOUT, socket.next()) => {
                    let heard = heard.expect("it is left hanging").ok_or(())?.map_err(drop)?;
                    let Message::Text(text) = heard else { continue };
                    let words: Vec<_> = text.split(' ').collect();
                    let number = |at: usize| words.get(at).and_then(|it| it.parse::<u64>().ok());
                    let expected = match words[0] {
                        "answer" => &mut answered,
                        "push" => &mut pushed,
                        _ => &mut 0,
                    };
                    *expected += 1;
                    let served = number(2).unwrap_or_default();
                    let right = number(1) == Some(*expected) && served >= workers;
                    self.stats.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
                    self.stats.recovered.fetch_add(served.saturating_sub(workers), Ordering::Relaxed);
                    workers = served;
                    self.stats.heard.fetch_add(1, Ordering::Relaxed);
                }
                _ = turns.tick() => {
                    if !self.stats.over.load(Ordering::Relaxed) {
                        said += 1;
                        socket.send(Message::text(said.to_string())).await.map_err(drop)?;
                    }
                }
            }
        }
        let _ = socket.close(None).await;
        while let Some(Ok(_)) = socket.next().await {}
        Ok(())
    }
}
