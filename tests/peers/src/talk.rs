//! A client that compresses if the server agrees: sends each line of its input, prints each answer, and at
//! last the code with which it is closed.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use yawc::{CompressionLevel, Frame, OpCode, Options, WebSocket};

use crate::BoxError;

pub async fn talk(address: &str, path: &str) -> Result<(), BoxError> {
    let stream = TcpStream::connect(address).await?;
    let options = Options::default().with_compression_level(CompressionLevel::default());
    let url = format!("ws://{address}{path}").parse()?;
    let mut socket = WebSocket::handshake(url, stream, options).await?;
    println!("open");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => socket.send(Frame::text(line)).await?,
                None => return Ok(socket.close().await?),
            },
            frame = socket.next() => match frame {
                Some(frame) if frame.opcode() == OpCode::Close => {
                    println!("closed {:?}", frame.close_code().map(u16::from));
                    return Ok(());
                }
                Some(frame) => println!("{}", String::from_utf8_lossy(frame.payload())),
                None => {
                    println!("cut");
                    return Ok(());
                }
            },
        }
    }
}
