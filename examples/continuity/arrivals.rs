//! A constant stream of clients that come once, ask for a page and go.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};

use crate::client::Shared;

/// How long a page may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Lets clients come until all are to finish.
pub(crate) async fn arrive(shared: Rc<Shared>) {
    let Some(period) = Duration::from_secs(1).checked_div(shared.options.arrivals) else { return };
    let mut next = interval(period);
    next.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0;
    let mut under_way = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            _ = next.tick() => {
                number += 1;
                under_way.spawn_local(come(number, Rc::clone(&shared)));
            }
            Some(_) = under_way.join_next() => {}
            () = shared.finishing.cancelled() => break,
        }
    }
    while under_way.join_next().await.is_some() {}
}

async fn come(number: u32, shared: Rc<Shared>) {
    let begun = Instant::now();
    let page = timeout(TIMEOUT, page(number, shared.address, shared.options.sources)).await;
    let mut stats = shared.stats.borrow_mut();
    match page {
        Ok(Ok(answer)) if answer.starts_with(b"HTTP/1.1 200") => {
            stats.arrivals.record(begun.elapsed());
        }
        Ok(Ok(answer)) if answer.is_empty() => stats.cut_off(begun, "no answer".to_owned()),
        Ok(Ok(answer)) => {
            let begin = String::from_utf8_lossy(&answer[..answer.len().min(40)]).into_owned();
            stats.turned_away(format!("answer was {begin:?}"));
        }
        Ok(Err(error)) => stats.cut_off(begun, error.to_string()),
        Err(_) => stats.turned_away("no answer in time".to_owned()),
    }
}

/// Asks for a page. The answer.
pub(crate) async fn page(
    number: u32,
    address: SocketAddr,
    sources: u32,
) -> std::io::Result<Vec<u8>> {
    let socket = TcpSocket::new_v4()?;
    let source = Ipv4Addr::new(127, 79, 0, 0).to_bits() + 1 + number % sources;
    socket.bind((Ipv4Addr::from_bits(source), 0).into())?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}
