//! One registry on one shard: its connections, their rooms, and which other shards have members.
//! Decides who gets a frame; knows no frame, no socket and no clock. What is in one tenant is
//! never found through another.

use std::sync::Arc;

use ahash::AHashMap;
use slab::Slab;
use smallvec::SmallVec;
use thiserror::Error;

use super::ConnKey;

use crate::id::{ConnId, Tenant};

/// Longest name of a room, in bytes.
pub const ROOM_NAME_BYTES_MAX: usize = 255;

/// Why a connection may not join a room.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// The name is empty or too long.
    #[error("room name of {bytes} bytes: it must have 1 to {ROOM_NAME_BYTES_MAX}")]
    RoomName {
        /// Its length.
        bytes: usize,
    },
    /// The connection is in as many rooms as it may be.
    #[error("connection is in {max} rooms, the most that limits.rooms_per_connection_max allows")]
    TooManyRooms {
        /// The limit.
        max: usize,
    },
}

/// Whom a frame is meant for, inside the tenants that it may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<S = Arc<str>> {
    /// Every connection.
    Everyone,
    /// The members of a room.
    Room(S),
    /// One connection.
    Client(ConnId),
}

/// Whom a frame is meant for: tenant, target, and who is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The tenant, or `None` for all of them.
    pub tenant: Option<Tenant>,
    /// Whom inside it.
    pub target: Target,
    /// Who does not get it all the same.
    pub except: Option<ConnId>,
    /// Several rooms in place of the target, or rooms that are left out.
    pub more: Option<Arc<Rooms>>,
}

/// Several rooms: each member is meant once, those of the others are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rooms {
    /// Whose members are meant; none of them means the target itself.
    pub of: Vec<Arc<str>>,
    /// Whose members are left out.
    pub except: Vec<Arc<str>>,
}

/// What the other shards must learn, in this order, before anything that comes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// This shard has its first connection of a tenant.
    TenantOpened(Tenant),
    /// Its last connection of a tenant is gone.
    TenantClosed(Tenant),
    /// It has its first member of a room.
    RoomOpened(Tenant, Arc<str>),
    /// Its last member of a room is gone.
    RoomClosed(Tenant, Arc<str>),
}

/// The state of one registry on one shard.
#[derive(Debug)]
pub struct Registry {
    connections: Slab<Connection>,
    by_id: AHashMap<ConnId, u32>,
    rooms: Slab<Room>,
    worlds: AHashMap<Tenant, World>,
    rooms_max: usize,
}

/// What one tenant has here.
#[derive(Debug, Default)]
struct World {
    members: Vec<Member>,
    rooms: AHashMap<Arc<str>, u32>,
    elsewhere: ShardSet,
}

#[derive(Debug)]
struct Room {
    tenant: Tenant,
    name: Arc<str>,
    members: Vec<Member>,
    elsewhere: ShardSet,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    key: ConnKey,
    connection: u32,
}

#[derive(Debug)]
struct Connection {
    key: ConnKey,
    tenant: Tenant,
    place: u32,
    rooms: SmallVec<[Membership; 2]>,
}

#[derive(Debug, Clone, Copy)]
struct Membership {
    room: u32,
    place: u32,
}

impl Registry {
    /// Lets connections be in `rooms_max` rooms each from here on.
    pub fn set_rooms_max(&mut self, rooms_max: usize) {
        self.rooms_max = rooms_max;
    }

    /// An empty registry whose connections may be in `rooms_max` rooms each.
    pub fn new(rooms_max: usize) -> Self {
        Self {
            connections: Slab::new(),
            by_id: AHashMap::new(),
            rooms: Slab::new(),
            worlds: AHashMap::new(),
            rooms_max,
        }
    }

    /// A connection has been made.
    pub fn connect(&mut self, id: ConnId, key: ConnKey, tenant: &Tenant) -> Option<Notice> {
        let world = match self.worlds.get_mut(tenant) {
            Some(world) => world,
            None => self.worlds.entry(tenant.clone()).or_default(),
        };
        let place = index(world.members.len());
        let connection = index(self.connections.insert(Connection {
            key,
            tenant: tenant.clone(),
            place,
            rooms: SmallVec::new(),
        }));
        world.members.push(Member { key, connection });
        let known = self.by_id.insert(id, connection);
        assert!(known.is_none(), "a connection id is never used again");
        (place == 0).then(|| Notice::TenantOpened(tenant.clone()))
    }

    /// A connection has ended: it leaves all of its rooms and is gone.
    pub fn disconnect(&mut self, id: ConnId) -> Vec<Notice> {
        let Some(connection) = self.by_id.remove(&id) else {
            return Vec::new();
        };
        let mut notices = Vec::new();
        while let Some(membership) = self.connection(connection).rooms.last().copied() {
            notices.extend(self.unlink(connection, membership));
        }
        let Connection { tenant, place, .. } = self.connections.remove(connection as usize);
        if let Some(world) = self.worlds.get_mut(&tenant) {
            world.members.swap_remove(place as usize);
            if let Some(moved) = world.members.get(place as usize) {
                self.connections[moved.connection as usize].place = place;
            }
            if world.members.is_empty() {
                notices.push(Notice::TenantClosed(tenant.clone()));
                self.forget_world(&tenant);
            }
        }
        notices
    }

    /// The connection becomes a member of the room; to be one already changes nothing.
    pub fn join(&mut self, id: ConnId, room: &str) -> Result<Option<Notice>, Refused> {
        if !(1..=ROOM_NAME_BYTES_MAX).contains(&room.len()) {
            return Err(Refused::RoomName { bytes: room.len() });
        }
        let Some(&connection) = self.by_id.get(&id) else {
            return Ok(None);
        };
        let Connection {
            key, tenant, rooms, ..
        } = self.connection(connection);
        let (key, tenant) = (*key, tenant.clone());
        if let Some(room) = self.find(&tenant, room)
            && rooms.iter().any(|membership| membership.room == room)
        {
            return Ok(None);
        }
        if self.rooms_max <= rooms.len() {
            return Err(Refused::TooManyRooms {
                max: self.rooms_max,
            });
        }
        let room = self.open(&tenant, room);
        let members = &mut self.rooms[room as usize].members;
        let place = index(members.len());
        members.push(Member { key, connection });
        let memberships = &mut self.connections[connection as usize].rooms;
        memberships.push(Membership { room, place });
        let name = &self.rooms[room as usize].name;
        Ok((place == 0).then(|| Notice::RoomOpened(tenant, name.clone())))
    }

    /// The connection is no member of the room any more.
    pub fn leave(&mut self, id: ConnId, room: &str) -> Option<Notice> {
        let connection = *self.by_id.get(&id)?;
        let room = self.find(&self.connection(connection).tenant, room)?;
        let rooms = &self.connection(connection).rooms;
        let membership = *rooms.iter().find(|membership| membership.room == room)?;
        self.unlink(connection, membership)
    }

    /// The rooms of a connection, in the order in which it joined them as far as it left none.
    pub fn rooms_of(&self, id: ConnId) -> Vec<Arc<str>> {
        let Some(&connection) = self.by_id.get(&id) else {
            return Vec::new();
        };
        let rooms = self.connection(connection).rooms.iter();
        rooms
            .map(|membership| self.rooms[membership.room as usize].name.clone())
            .collect()
    }

    /// What another shard has told about itself.
    pub fn handle_notice(&mut self, shard: u16, notice: &Notice) {
        match notice {
            Notice::TenantOpened(tenant) => {
                let world = self.worlds.entry(tenant.clone()).or_default();
                world.elsewhere.insert(shard);
            }
            Notice::TenantClosed(tenant) => {
                if let Some(world) = self.worlds.get_mut(tenant) {
                    world.elsewhere.remove(shard);
                    self.forget_world(tenant);
                }
            }
            Notice::RoomOpened(tenant, name) => {
                let room = self.open(tenant, name);
                self.rooms[room as usize].elsewhere.insert(shard);
            }
            Notice::RoomClosed(tenant, name) => {
                if let Some(room) = self.find(tenant, name) {
                    self.rooms[room as usize].elsewhere.remove(shard);
                    self.forget_room(room);
                }
            }
        }
    }

    /// What a shard must be told that knows nothing yet: all that this one has.
    pub fn notices(&self) -> Vec<Notice> {
        let worlds = self.worlds.iter();
        let tenants = worlds
            .filter(|(_, world)| !world.members.is_empty())
            .map(|(tenant, _)| Notice::TenantOpened(tenant.clone()));
        let rooms = self.rooms.iter().map(|(_, room)| room);
        let rooms = rooms
            .filter(|room| !room.members.is_empty())
            .map(|room| Notice::RoomOpened(room.tenant.clone(), room.name.clone()));
        tenants.chain(rooms).collect()
    }

    /// A name is a room where the tenant has one, on any shard; else the id of a connection;
    /// else a room that nobody is in.
    pub fn resolve<'a>(&self, tenant: Option<&Tenant>, name: &'a str) -> Target<&'a str> {
        let is_room = match tenant {
            Some(tenant) => self.find(tenant, name).is_some(),
            None => (self.worlds.values()).any(|world| world.rooms.contains_key(name)),
        };
        match name.parse() {
            Ok(id) if !is_room => Target::Client(id),
            _ => Target::Room(name),
        }
    }

    /// Calls `each` with every connection of this shard that the address names.
    pub fn each_here(
        &self,
        tenant: Option<&Tenant>,
        target: Target<&str>,
        except: Option<ConnId>,
        mut each: impl FnMut(ConnKey),
    ) {
        let except = except.and_then(|id| self.by_id.get(&id).copied());
        let mut all = |members: &[Member]| {
            for member in members {
                if Some(member.connection) != except {
                    each(member.key);
                }
            }
        };
        match target {
            Target::Everyone => self.worlds_in(tenant, |world| all(&world.members)),
            Target::Room(name) => self.worlds_in(tenant, |world| {
                if let Some(room) = world.rooms.get(name) {
                    all(&self.rooms[*room as usize].members);
                }
            }),
            Target::Client(id) => {
                if let Some((connection, found)) = self.client(tenant, id) {
                    all(&[Member {
                        key: found.key,
                        connection,
                    }]);
                }
            }
        }
    }

    /// The same for several rooms.
    pub fn each_of(
        &self,
        (tenant, target): (Option<&Tenant>, Target<&str>),
        rooms: &Rooms,
        except: Option<ConnId>,
        mut each: impl FnMut(ConnKey),
    ) {
        let members = |names: &[Arc<str>], keys: &mut Vec<ConnKey>| {
            for name in names {
                self.each_here(tenant, Target::Room(name), except, |key| keys.push(key));
            }
        };
        let (mut left_out, mut meant) = (Vec::new(), Vec::new());
        members(&rooms.except, &mut left_out);
        if rooms.of.is_empty() {
            self.each_here(tenant, target, except, |key| meant.push(key));
        } else {
            members(&rooms.of, &mut meant);
        }
        left_out.sort_unstable();
        meant.sort_unstable();
        meant.dedup();
        for key in meant {
            if left_out.binary_search(&key).is_err() {
                each(key);
            }
        }
    }

    /// The other shards that have connections which the address names, as far as one can know.
    pub fn elsewhere(&self, tenant: Option<&Tenant>, target: Target<&str>) -> ShardSet {
        let mut shards = ShardSet::default();
        match target {
            Target::Room(name) => self.worlds_in(tenant, |world| {
                if let Some(room) = world.rooms.get(name) {
                    shards.extend(&self.rooms[*room as usize].elsewhere);
                }
            }),
            Target::Client(id) if self.by_id.contains_key(&id) => {}
            Target::Client(_) | Target::Everyone => {
                self.worlds_in(tenant, |world| shards.extend(&world.elsewhere));
            }
        }
        shards
    }

    /// The connection with this id, if it is here and in a tenant that may be reached.
    pub fn key_of(&self, tenant: Option<&Tenant>, id: ConnId) -> Option<ConnKey> {
        self.client(tenant, id).map(|(_, found)| found.key)
    }

    /// How many connections of a tenant, or of all, this shard has.
    pub fn count(&self, tenant: Option<&Tenant>) -> usize {
        let mut count = 0;
        self.worlds_in(tenant, |world| count += world.members.len());
        count
    }

    fn client(&self, tenant: Option<&Tenant>, id: ConnId) -> Option<(u32, &Connection)> {
        let connection = *self.by_id.get(&id)?;
        let found = self.connection(connection);
        let reached = tenant.is_none_or(|tenant| *tenant == found.tenant);
        reached.then_some((connection, found))
    }

    fn worlds_in<'a>(&'a self, tenant: Option<&Tenant>, mut each: impl FnMut(&'a World)) {
        match tenant {
            Some(tenant) => self.worlds.get(tenant).into_iter().for_each(each),
            None => self.worlds.values().for_each(&mut each),
        }
    }

    fn connection(&self, connection: u32) -> &Connection {
        &self.connections[connection as usize]
    }

    fn find(&self, tenant: &Tenant, room: &str) -> Option<u32> {
        self.worlds.get(tenant)?.rooms.get(room).copied()
    }

    /// The room of this name, made if there is none.
    fn open(&mut self, tenant: &Tenant, name: &str) -> u32 {
        if let Some(room) = self.find(tenant, name) {
            return room;
        }
        let name: Arc<str> = name.into();
        let room = index(self.rooms.insert(Room {
            tenant: tenant.clone(),
            name: name.clone(),
            members: Vec::new(),
            elsewhere: ShardSet::default(),
        }));
        let world = self.worlds.entry(tenant.clone()).or_default();
        world.rooms.insert(name, room);
        room
    }

    /// Takes a membership away from both of its ends.
    fn unlink(&mut self, connection: u32, membership: Membership) -> Option<Notice> {
        let rooms = &mut self.connections[connection as usize].rooms;
        rooms.retain(|kept| kept.room != membership.room);
        let room = &mut self.rooms[membership.room as usize];
        let gone = room.members.swap_remove(membership.place as usize);
        assert_eq!(gone.connection, connection, "a membership knows its place");
        if let Some(moved) = room.members.get(membership.place as usize) {
            let rooms = &mut self.connections[moved.connection as usize].rooms;
            let theirs = rooms.iter_mut().find(|kept| kept.room == membership.room);
            if let Some(theirs) = theirs {
                theirs.place = membership.place;
            }
        }
        if !room.members.is_empty() {
            return None;
        }
        let notice = Notice::RoomClosed(room.tenant.clone(), room.name.clone());
        self.forget_room(membership.room);
        Some(notice)
    }

    /// A room exists while it has a member somewhere.
    fn forget_room(&mut self, room: u32) {
        let Room {
            members, elsewhere, ..
        } = &self.rooms[room as usize];
        if members.is_empty() && elsewhere.is_empty() {
            let Room { tenant, name, .. } = self.rooms.remove(room as usize);
            if let Some(world) = self.worlds.get_mut(&tenant) {
                world.rooms.remove(&name);
            }
            self.forget_world(&tenant);
        }
    }

    fn forget_world(&mut self, tenant: &Tenant) {
        let empty = |world: &World| !world.has_connections() && world.rooms.is_empty();
        if self.worlds.get(tenant).is_some_and(empty) {
            self.worlds.remove(tenant);
        }
    }
}

impl World {
    fn has_connections(&self) -> bool {
        !self.members.is_empty() || !self.elsewhere.is_empty()
    }
}

impl Target {
    /// The same target, its name borrowed.
    pub fn as_deref(&self) -> Target<&str> {
        match self {
            Self::Everyone => Target::Everyone,
            Self::Room(name) => Target::Room(name),
            Self::Client(id) => Target::Client(*id),
        }
    }
}

impl Target<&str> {
    /// The same target, its name owned, to be sent to another shard.
    pub fn to_shared(self) -> Target {
        match self {
            Target::Everyone => Target::Everyone,
            Target::Room(name) => Target::Room(name.into()),
            Target::Client(id) => Target::Client(id),
        }
    }
}

/// A set of shards, one bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardSet(SmallVec<[u64; 1]>);

impl ShardSet {
    /// Adds a shard.
    pub fn insert(&mut self, shard: u16) {
        let (word, bit) = Self::place(shard);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    /// Takes a shard out.
    pub fn remove(&mut self, shard: u16) {
        let (word, bit) = Self::place(shard);
        if let Some(bits) = self.0.get_mut(word) {
            *bits &= !bit;
        }
    }

    /// Adds all shards of another set.
    pub fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (bits, more) in self.0.iter_mut().zip(&other.0) {
            *bits |= more;
        }
    }

    /// Whether no shard is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|bits| *bits == 0)
    }

    /// The shards in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..u16::MAX)
            .take(self.0.len() * 64)
            .filter(|shard| self.contains(*shard))
    }

    /// Whether a shard is in it.
    pub fn contains(&self, shard: u16) -> bool {
        let (word, bit) = Self::place(shard);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn place(shard: u16) -> (usize, u64) {
        (usize::from(shard / 64), 1 << (shard % 64))
    }
}

/// Connections and rooms of a shard are far fewer than 2^32: a connection takes memory that no
/// machine has four billion times.
#[expect(
    clippy::expect_used,
    reason = "no shard holds 2^32 connections or rooms"
)]
fn index(number: usize) -> u32 {
    u32::try_from(number).expect("fewer than 2^32 connections and rooms")
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
