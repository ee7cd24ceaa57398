//! Length-delimited JSON: a 4-byte little-endian length, then that many bytes of one JSON message.

use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A message longer than this is refused: a lease of a full shard is far smaller.
const MAX_MESSAGE: usize = 64 << 20;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The pipe broke.
    #[error("the pipe between coordinator and worker broke: {0}")]
    Io(#[from] io::Error),
    /// The bytes are no message.
    #[error("not a message of this version of affectmill: {0}")]
    Json(#[from] serde_json::Error),
    /// The length is absurd: something else writes to the pipe.
    #[error("a message claims {0} bytes: something else writes to the pipe")]
    TooLong(usize),
}

/// Reads one message; `None` when the other side has closed the pipe between two messages.
pub fn read_message<T: DeserializeOwned>(input: &mut impl Read) -> Result<Option<T>, WireError> {
    let mut header = [0; 4];
    if input.read(&mut header[..1])? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut header[1..])?;
    let mut body = vec![0; length(header)?];
    input.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// Writes one message and flushes it.
pub fn write_message<T: Serialize>(output: &mut impl Write, message: &T) -> Result<(), WireError> {
    output.write_all(&frame(message)?)?;
    Ok(output.flush()?)
}

/// As [`read_message`].
pub async fn read_message_async<T: DeserializeOwned>(
    input: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, WireError> {
    let mut header = [0; 4];
    if input.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut header[1..]).await?;
    let mut body = vec![0; length(header)?];
    input.read_exact(&mut body).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// As [`write_message`].
pub async fn write_message_async<T: Serialize>(
    output: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), WireError> {
    output.write_all(&frame(message)?).await?;
    Ok(output.flush().await?)
}

fn length(header: [u8; 4]) -> Result<usize, WireError> {
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_MESSAGE {
        Err(WireError::TooLong(length))
    } else {
        Ok(length)
    }
}

fn frame<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_MESSAGE {
        return Err(WireError::TooLong(length));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_pipe_and_garbage_does_not() {
        let mut pipe = Vec::new();
        write_message(&mut pipe, &vec!["a", "é"]).unwrap();
        write_message(&mut pipe, &Vec::<String>::new()).unwrap();
        assert_eq!(
            &pipe[..4],
            &[10, 0, 0, 0],
            "little-endian length of [\"a\",\"é\"]"
        );
        let mut input = pipe.as_slice();
        assert_eq!(
            read_message::<Vec<String>>(&mut input).unwrap().unwrap(),
            ["a", "é"]
        );
        assert_eq!(read_message::<Vec<String>>(&mut input).unwrap().unwrap().len(), 0);
        assert!(read_message::<Vec<String>>(&mut input).unwrap().is_none());

        let cut = &pipe[..9];
        assert!(matches!(
            read_message::<Vec<String>>(&mut &cut[..]),
            Err(WireError::Io(_))
        ));
        let text = b"hello from a library that prints";
        assert!(matches!(
            read_message::<Vec<String>>(&mut &text[..]),
            Err(WireError::TooLong(_))
        ));
    }
}
