//! Where a request comes from: its peer, or whom a trusted proxy names. Knows addresses and their
//! limits; an address that was told is counted and shown, and never opens anything.
//!
//! A proxy is not counted when it connects, for nobody has said yet for whom it does. An upgrade
//! takes its place at its head and keeps it; of HTTP each request does until it is answered, since
//! requests of many clients may follow each other on a proxy's connection.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::proto::http::Head;

use crate::shard::door::forwarded::{self, client_of};
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::connection::Arrival;
use crate::shard::socket::tickets::counted;
use crate::shard::state::State;
use crate::shard::state::shared::Live;

/// The status and the text of a refusal.
type Refusal = (u16, &'static str);

impl Live {
    /// Whether what this peer forwards is believed.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|proxies| proxies.contains(address))
    }
}

impl State {
    /// Gives a connection whose head was read the address that its proxy names, if it has one.
    pub(crate) fn note_arrival(&mut self, key: SlotKey, head: &Head) -> Result<(), Refusal> {
        if self.live.proxies.is_empty() {
            return Ok(());
        }
        let Some(peer) = self.peer_of(key) else {
            return Ok(());
        };
        let arrival = self.arrival(peer, head.headers_named(forwarded::HEADER))?;
        if let (Some(arrival), Some(connection)) = (arrival, self.connections.alive(key)) {
            connection.arrive(arrival);
        }
        Ok(())
    }

    /// The same for a request that hyper has read.
    pub(crate) fn arrival_of(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<Option<Arrival>, Refusal> {
        let lines = headers.get_all(forwarded::HEADER).iter();
        // No address has other characters.
        self.arrival(peer, lines.map(|line| line.to_str().unwrap_or("?")))
    }

    /// `None` if the peer is no proxy: then it was counted when it connected.
    fn arrival<'a>(
        &self,
        peer: SocketAddr,
        lines: impl DoubleEndedIterator<Item = &'a str>,
    ) -> Result<Option<Arrival>, Refusal> {
        if !self.live.trusts(peer.ip()) {
            return Ok(None);
        }
        let client = client_of(lines, |address| self.live.trusts(address));
        let client = client.unwrap_or_else(|error| {
            tracing::debug!(target: "tidegate::shard", %peer, %error, "taken for the proxy's own");
            None
        });
        let client = client.unwrap_or(peer);
        let limits = &self.live.limits;
        let ticket = match limits.counts_addresses() {
            true => {
                let gate = &self.shared.gate;
                gate.enter(counted(client.ip()), limits, self.now_ms)?
            }
            false => None,
        };
        Ok(Some(Arrival { client, ticket }))
    }
}
