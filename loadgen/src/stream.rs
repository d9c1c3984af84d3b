//! One open connection before its run: bytes go out and come in one after another, sealed or not.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};

use crate::seal::Session;

/// A connection, and its session of TLS if it has one.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    pub(crate) tls: Option<Box<Session>>,
    /// What was opened and not read.
    plain: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, tls: Option<Box<Session>>) -> Self {
        let plain = Vec::new();
        Self { socket, tls, plain }
    }

    /// Sends bytes; those of a session that is not established yet wait for it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.tls {
            None => self.socket.write_all(bytes)?,
            Some(tls) => {
                let sealed = tls.seal(bytes)?;
                self.socket.write_all(&sealed)?;
            }
        }
        Ok(())
    }

    /// Reads what is there, at most so much as `chunk` holds; 0 is the end.
    pub(crate) fn read(&mut self, chunk: &mut [u8]) -> Result<usize> {
        if self.tls.is_none() {
            return Ok(self.socket.read(chunk)?);
        }
        let count = self.peek(chunk)?;
        self.plain.drain(..count);
        Ok(count)
    }

    /// Shows what `read` would bring.
    pub(crate) fn peek(&mut self, chunk: &mut [u8]) -> Result<usize> {
        let Some(tls) = &mut self.tls else {
            return Ok(self.socket.peek(chunk)?);
        };
        while self.plain.is_empty() {
            let mut sealed = [0; SEALED_BYTES];
            let count = self.socket.read(&mut sealed)?;
            if count == 0 {
                return Ok(0);
            }
            tls.open(&sealed[..count], &mut self.plain)?;
            let out = tls.output()?;
            self.socket.write_all(&out)?;
        }
        let count = self.plain.len().min(chunk.len());
        chunk[..count].copy_from_slice(&self.plain[..count]);
        Ok(count)
    }

    /// Reads bytes until `end` finds where they are complete, and nothing behind that.
    pub(crate) fn read_until(
        &mut self,
        what: &str,
        mut end: impl FnMut(&[u8]) -> Result<Option<usize>>,
    ) -> Result<Vec<u8>> {
        let mut read = Vec::new();
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let before = read.len();
            let count = self
                .peek(&mut chunk)
                .with_context(|| format!("wait for {what}"))?;
            if count == 0 {
                bail!("the server closed a connection in place of {what}");
            }
            read.extend_from_slice(&chunk[..count]);
            let found = end(&read)?;
            let taken = found.map_or(count, |end| end - before);
            self.read(&mut chunk[..taken])?;
            if found.is_some() {
                read.truncate(before + taken);
                return Ok(read);
            }
        }
    }
}

const CHUNK_BYTES: usize = 512;
const SEALED_BYTES: usize = 16 << 10;
