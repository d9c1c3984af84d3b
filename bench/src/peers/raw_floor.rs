//! Plain TCP on io_uring: bytes go back as they came. No frames, no upgrade, no dialect: what the
//! machine asks for moving bytes at all.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use anyhow::{Context, Result};
use loadgen::ring::{Completion, Kind, Ring, TaskWork};

use super::{Listen, announce};

/// Serves on the calling thread; another one accepts, which costs nothing once all are there.
pub(super) fn serve(listen: &Listen) -> Result<()> {
    let listener = TcpListener::bind(listen.listen);
    let listener = listener.with_context(|| format!("listen on {}", listen.listen))?;
    announce(listener.local_addr()?)?;
    let (accepted, arriving) = mpsc::channel();
    std::thread::spawn(move || accept(&listener, &accepted));
    let mut ring = Ring::new(TaskWork::Cooperative, BUFFER_BYTES, CONNECTIONS)?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    loop {
        for stream in arriving.try_iter() {
            ring.receive(stream.as_fd(), u32::try_from(streams.len())?)?;
            streams.push(Some(stream));
        }
        ring.wait(ACCEPT_EVERY)?;
        let completions = ring.completions();
        for completion in completions.iter().filter(|it| it.kind == Kind::Receive) {
            echo(&mut ring, &mut streams[completion.id as usize], completion)?;
        }
        ring.recycle(completions);
    }
}

fn accept(listener: &TcpListener, accepted: &Sender<TcpStream>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        accepted.send(stream)?;
    }
}

fn echo(ring: &mut Ring, slot: &mut Option<TcpStream>, completion: &Completion) -> Result<()> {
    let Some(stream) = slot else { return Ok(()) };
    let bytes = ring.read(completion, <[u8]>::to_vec);
    let out_of_buffers = completion.result.is_err_and(|error| error == ENOBUFS);
    if bytes.is_empty() && !out_of_buffers {
        *slot = None;
        return Ok(());
    }
    if !bytes.is_empty() {
        ring.send_owned(stream.as_fd(), bytes)?;
    }
    if !completion.more {
        ring.receive(stream.as_fd(), completion.id)?;
    }
    Ok(())
}

const BUFFER_BYTES: usize = 4 << 10;
/// More than a comparison opens.
const CONNECTIONS: usize = 16_000;
const ACCEPT_EVERY: Duration = Duration::from_millis(5);
const ENOBUFS: i32 = 105;
