//! Services that fit together, and those that do not: who is named, and in which order all is built.

use super::*;

#[derive(Debug)]
struct Settings(u8);
#[derive(Debug)]
struct Room(u8);
struct Desk(Arc<Room>);
struct Egg;
struct Hen;

impl Injectable for Room {
    fn dependencies() -> Vec<Dependency> {
        Arc::<Settings>::dependencies()
    }
    fn build(resolver: &Resolver<'_>) -> Result<Self, StartError> {
        Ok(Self(resolver.inject::<State<Settings>>()?.0.0 + 1))
    }
}

impl Injectable for Desk {
    fn dependencies() -> Vec<Dependency> {
        Arc::<Room>::dependencies()
    }
    fn build(resolver: &Resolver<'_>) -> Result<Self, StartError> {
        Ok(Self(resolver.service()?))
    }
}

impl Injectable for Egg {
    fn dependencies() -> Vec<Dependency> {
        vec![Dependency::of::<Hen>()]
    }
    fn build(_: &Resolver<'_>) -> Result<Self, StartError> {
        Ok(Self)
    }
}

impl Injectable for Hen {
    fn dependencies() -> Vec<Dependency> {
        vec![Dependency::of::<Egg>()]
    }
    fn build(_: &Resolver<'_>) -> Result<Self, StartError> {
        Ok(Self)
    }
}

/// P-02, N-15: listed in any order, built once each.
#[test]
fn services_are_built_after_what_they_need() {
    let mut builder = ContainerBuilder::new();
    builder.injectable::<Desk>().injectable::<Room>();
    builder.provide(Settings(1)).injectable::<Room>();
    let container = builder.build().unwrap();
    let desk = container.get::<Desk>().unwrap();
    let room = container.get::<Room>().unwrap();
    assert_eq!(room.0, 2);
    assert!(Arc::ptr_eq(&desk.0, &room));
    assert!(container.get::<Egg>().is_none());
}

#[test]
fn a_provided_value_stands_in_place_of_a_provider() {
    let mut builder = ContainerBuilder::new();
    builder.injectable::<Room>().provide(Room(9));
    assert_eq!(builder.build().unwrap().get::<Room>().unwrap().0, 9);
}

/// N-13: names who wants what.
#[test]
fn a_missing_provider_names_the_chain() {
    let mut builder = ContainerBuilder::new();
    builder.injectable::<Desk>().injectable::<Room>();
    let error = builder.build().unwrap_err().to_string();
    let expected = "`Settings` is not provided (wanted by Room, wanted by Desk): \
         list it in `providers = [Settings]` of a module, or call `.provide(..)`";
    assert_eq!(error, expected);
}

#[test]
fn a_wish_that_nobody_fulfils_is_an_error() {
    let mut builder = ContainerBuilder::new();
    builder.require(Dependency::of::<Settings>(), "relay `room:*`");
    let error = builder.build().unwrap_err().to_string();
    let start = "`Settings` is not provided (wanted by relay `room:*`)";
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn a_circle_is_drawn() {
    let mut builder = ContainerBuilder::new();
    builder.injectable::<Egg>().injectable::<Hen>();
    let error = builder.build().unwrap_err().to_string();
    assert_eq!(
        error,
        "providers need each other in a circle: Egg -> Hen -> Egg"
    );
}

#[test]
fn names_lose_their_paths() {
    let full = "a::b::WsServer<c::d::NotifyNs>";
    assert_eq!(short_name(full), "WsServer<NotifyNs>");
    assert_eq!(short_name("(a::B, [c::D; 2])"), "(B, [D; 2])");
    assert_eq!(registry_marker("WsServer<NotifyNs>"), Some("NotifyNs"));
}
