//! Registries by themselves: who is reached, and what other shards are told.

use proptest::prelude::*;

use super::*;

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

fn key(slot: u32) -> ConnKey {
    ConnKey {
        shard: 0,
        lane: 0,
        slot,
        generation: 1,
    }
}

fn here(registry: &Registry, at: &Tenant, target: Target<&str>) -> Vec<u32> {
    let mut keys = Vec::new();
    registry.each_here(Some(at), target, None, |key| keys.push(key.slot));
    keys.sort_unstable();
    keys
}

fn everyone(registry: &Registry, at: Option<&Tenant>, except: Option<ConnId>) -> Vec<u32> {
    let mut keys = Vec::new();
    registry.each_here(at, Target::Everyone, except, |key| keys.push(key.slot));
    keys.sort_unstable();
    keys
}

/// idempotent, gone with the last member.
#[test]
fn a_room_exists_while_it_has_a_member() {
    let (a, mut registry) = (tenant("a"), Registry::new(8));
    assert_eq!(
        registry.connect(1, key(10), &a),
        Some(Notice::TenantOpened(a.clone()))
    );
    assert_eq!(registry.connect(2, key(20), &a), None);
    let opened = Notice::RoomOpened(a.clone(), "lobby".into());
    assert_eq!(registry.join(1, "lobby"), Ok(Some(opened)));
    assert_eq!(registry.join(1, "lobby"), Ok(None));
    assert_eq!(registry.join(2, "lobby"), Ok(None));
    assert_eq!(here(&registry, &a, Target::Room("lobby")), [10, 20]);
    assert_eq!(registry.leave(1, "lobby"), None);
    assert_eq!(here(&registry, &a, Target::Room("lobby")), [20]);
    let closed = Notice::RoomClosed(a.clone(), "lobby".into());
    assert_eq!(registry.leave(2, "lobby"), Some(closed));
    assert_eq!(registry.leave(2, "lobby"), None);
    assert_eq!(registry.rooms.len(), 0);
}

/// rooms can be read until the entry goes, then all go at once.
#[test]
fn a_disconnect_drops_all_rooms_at_once() {
    let (a, mut registry) = (tenant("a"), Registry::new(8));
    registry.connect(1, key(10), &a);
    registry.join(1, "x").unwrap();
    registry.join(1, "y").unwrap();
    assert_eq!(registry.rooms_of(1), ["x".into(), "y".into()]);
    let mut notices = registry.disconnect(1);
    assert_eq!(notices.pop(), Some(Notice::TenantClosed(a.clone())));
    assert_eq!(notices.len(), 2);
    assert!(registry.disconnect(1).is_empty());
    assert!(registry.worlds.is_empty() && registry.rooms.is_empty());
}

/// D-06: a room of the same name, a broadcast and an id stay inside their tenant.
#[test]
fn nothing_is_found_through_another_tenant() {
    let (a, b, mut registry) = (tenant("a"), tenant("b"), Registry::new(8));
    registry.connect(1, key(10), &a);
    registry.connect(2, key(20), &b);
    registry.join(1, "lobby").unwrap();
    registry.join(2, "lobby").unwrap();
    assert_eq!(here(&registry, &a, Target::Room("lobby")), [10]);
    assert_eq!(here(&registry, &a, Target::Everyone), [10]);
    assert!(here(&registry, &a, Target::Client(2)).is_empty());
    assert_eq!(registry.key_of(Some(&a), 2), None);
    assert_eq!(registry.key_of(Some(&b), 2), Some(key(20)));
    assert_eq!(everyone(&registry, None, None), [10, 20]);
    assert_eq!((registry.count(Some(&a)), registry.count(None)), (1, 2));
}

/// D-15: a room first, then a connection.
#[test]
fn a_name_is_a_room_first() {
    let (a, mut registry) = (tenant("a"), Registry::new(8));
    registry.connect(1, key(10), &a);
    registry.connect(2, key(20), &a);
    assert_eq!(registry.resolve(Some(&a), "2"), Target::Client(2));
    registry.join(1, "2").unwrap();
    assert_eq!(registry.resolve(Some(&a), "2"), Target::Room("2"));
    assert_eq!(registry.resolve(Some(&tenant("b")), "2"), Target::Client(2));
    assert_eq!(registry.resolve(Some(&a), "nobody"), Target::Room("nobody"));
}

#[test]
fn the_sender_can_be_left_out() {
    let (a, mut registry) = (tenant("a"), Registry::new(8));
    registry.connect(1, key(10), &a);
    registry.connect(2, key(20), &a);
    assert_eq!(everyone(&registry, Some(&a), Some(1)), [20]);
    assert_eq!(everyone(&registry, Some(&a), Some(9)), [10, 20]);
}

/// D-15: bounds of names and of rooms a connection.
#[test]
fn rooms_are_bounded() {
    let (a, mut registry) = (tenant("a"), Registry::new(2));
    registry.connect(1, key(10), &a);
    registry.join(1, "x").unwrap();
    registry.join(1, "y").unwrap();
    assert_eq!(registry.join(1, "x"), Ok(None));
    assert_eq!(registry.join(1, "z"), Err(Refused::TooManyRooms { max: 2 }));
    assert_eq!(registry.join(1, ""), Err(Refused::RoomName { bytes: 0 }));
    let long = "n".repeat(256);
    assert_eq!(
        registry.join(1, &long),
        Err(Refused::RoomName { bytes: 256 })
    );
    assert_eq!(registry.join(7, "x"), Ok(None));
}

/// D-24: a send goes to those shards only that have members.
#[test]
fn other_shards_are_known_by_their_notices() {
    let (a, mut registry) = (tenant("a"), Registry::new(8));
    registry.handle_notice(3, &Notice::TenantOpened(a.clone()));
    registry.handle_notice(70, &Notice::TenantOpened(a.clone()));
    registry.handle_notice(3, &Notice::RoomOpened(a.clone(), "lobby".into()));
    let shards = |registry: &Registry, target| -> Vec<u16> {
        registry.elsewhere(Some(&a), target).iter().collect()
    };
    assert_eq!(shards(&registry, Target::Everyone), [3, 70]);
    assert_eq!(shards(&registry, Target::Client(1)), [3, 70]);
    assert_eq!(shards(&registry, Target::Room("lobby")), [3]);
    assert_eq!(registry.resolve(Some(&a), "lobby"), Target::Room("lobby"));
    registry.connect(1, key(10), &a);
    assert!(shards(&registry, Target::Client(1)).is_empty());
    registry.handle_notice(3, &Notice::RoomClosed(a.clone(), "lobby".into()));
    registry.handle_notice(3, &Notice::TenantClosed(a.clone()));
    registry.handle_notice(70, &Notice::TenantClosed(a.clone()));
    registry.disconnect(1);
    assert!(registry.worlds.is_empty() && registry.rooms.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Connect(u8),
    Disconnect(u8),
    Join(u8, u8),
    Leave(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6u8).prop_map(Step::Connect),
        (0..6u8).prop_map(Step::Disconnect),
        (0..6u8, 0..4u8).prop_map(|(id, room)| Step::Join(id, room)),
        (0..6u8, 0..4u8).prop_map(|(id, room)| Step::Leave(id, room)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The dense vectors agree with a plain set of pairs, and a second shard that only hears the
    /// notices knows exactly where members are.
    #[test]
    fn members_agree_with_a_model(steps in prop::collection::vec(step(), 1..80)) {
        let tenants = [tenant("a"), tenant("b")];
        let of = |id: u8| &tenants[usize::from(id % 2)];
        let mut registry = Registry::new(8);
        let mut other = Registry::new(8);
        let mut alive = std::collections::BTreeSet::new();
        let mut pairs = std::collections::BTreeSet::new();
        for step in steps {
            let notices = match step {
                Step::Connect(id) if alive.insert(id) => {
                    registry.connect(id.into(), key(id.into()), of(id)).into_iter().collect()
                }
                Step::Connect(_) => Vec::new(),
                Step::Disconnect(id) => {
                    alive.remove(&id);
                    pairs.retain(|(member, _)| *member != id);
                    registry.disconnect(id.into())
                }
                Step::Join(id, room) => {
                    if alive.contains(&id) {
                        pairs.insert((id, room));
                    }
                    let notice = registry.join(id.into(), &room.to_string()).unwrap();
                    notice.into_iter().collect()
                }
                Step::Leave(id, room) => {
                    pairs.remove(&(id, room));
                    registry.leave(id.into(), &room.to_string()).into_iter().collect()
                }
            };
            for notice in &notices {
                other.handle_notice(1, notice);
            }
            for at in &tenants {
                for room in 0..4u8 {
                    let members = pairs.iter().filter(|pair| pair.1 == room && of(pair.0) == at);
                    let members: Vec<u32> = members.map(|pair| pair.0.into()).collect();
                    let name = room.to_string();
                    prop_assert_eq!(&here(&registry, at, Target::Room(&name)), &members);
                    let known = !other.elsewhere(Some(at), Target::Room(&name)).is_empty();
                    prop_assert_eq!(known, !members.is_empty());
                }
                let count = alive.iter().filter(|id| of(**id) == at).count();
                prop_assert_eq!(registry.count(Some(at)), count);
            }
        }
    }
}
