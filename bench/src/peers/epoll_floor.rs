//! Plain TCP on epoll: bytes go back as they came, one read and one write an event. What an event
//! loop of the usual kind asks for moving bytes at all.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::{Listen, announce};

/// Serves on the calling thread.
pub(super) fn serve(listen: &Listen) -> Result<()> {
    let listener = TcpListener::bind(listen.listen);
    let listener = listener.with_context(|| format!("listen on {}", listen.listen))?;
    listener.set_nonblocking(true)?;
    announce(listener.local_addr()?)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                LISTENER => {
                    while let Ok((stream, _)) = listener.accept() {
                        stream.set_nodelay(true)?;
                        stream.set_nonblocking(true)?;
                        let data = EventData::new_u64(streams.len() as u64);
                        epoll::add(&epoll, &stream, data, EventFlags::IN)?;
                        streams.push(Some(stream));
                    }
                }
                number => echo(&mut streams[usize::try_from(number)?])?,
            }
        }
    }
}

fn echo(slot: &mut Option<TcpStream>) -> Result<()> {
    let Some(stream) = slot else { return Ok(()) };
    let mut bytes = [0; BUFFER_BYTES];
    match stream.read(&mut bytes) {
        Ok(0) => *slot = None,
        // What the peer does not take at once would need a buffer, which is not what is measured.
        Ok(count) => stream.write_all(&bytes[..count])?,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(_) => *slot = None,
    }
    Ok(())
}

const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 1024;
const BUFFER_BYTES: usize = 16 << 10;
