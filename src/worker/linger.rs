//! Closing that lets the last bytes arrive.
//!
//! A socket that is closed with bytes unread is reset, and the client's kernel may then throw the last
//! bytes away before the client has read them (RFC 9112, 9.6). So the sending side is ended first, and
//! the client's last bytes are read for a moment.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a client may take to end its side, too.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes read from a client that goes on sending.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Closes a client's connection: FIN, never a reset, as long as the client ends its side in time.
pub(crate) async fn close(mut stream: TcpStream) {
    // If the client has gone, there is nothing to wait for.
    if stream.shutdown().await.is_ok() {
        let (mut rest, mut nowhere) = (stream.take(MAX_BYTES), tokio::io::sink());
        let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_whose_bytes_stay_unread_still_gets_the_last_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        client.write_all(&[1; 100_000]).await.unwrap();
        stream.write_all(b"last words").await.unwrap();
        let closing = tokio::spawn(close(stream));
        client.write_all(&[1; 100_000]).await.unwrap();
        let mut words = Vec::new();
        client.read_to_end(&mut words).await.unwrap();
        assert_eq!(words, b"last words");
        drop(client);
        closing.await.unwrap();
    }
}
