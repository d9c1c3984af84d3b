//! The rules of payloads (`Validate`), wherever a payload carries a type that has some: in an
//! `Option`, a box, a list, a map, a tuple, and in what these hold. Which types have rules is found
//! by the compiler, so an alias hides none. Knows values; nothing of calls.

use std::any::Any;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet, LinkedList, VecDeque};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value};
use validator::{Validate, ValidationErrors};

use crate::gateway::exception::Exception;

/// Where a value stands in its payload.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    outer: Option<&'a Self>,
    name: Name<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Name<'a> {
    Whole,
    Index(usize),
    Key(&'a str),
}

impl<'a> Place<'a> {
    const WHOLE: Place<'static> = Place {
        outer: None,
        name: Name::Whole,
    };

    fn at(&'a self, index: usize) -> Self {
        Self {
            outer: Some(self),
            name: Name::Index(index),
        }
    }

    /// Names a place by its key; other keys than texts are `*`.
    fn of(&'a self, key: &'a dyn Any) -> Self {
        let text = key.downcast_ref::<String>().map(String::as_str);
        Self {
            outer: Some(self),
            name: Name::Key(text.unwrap_or("*")),
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.outer.map(Place::names).unwrap_or_default();
        match self.name {
            Name::Whole => {}
            Name::Index(index) => names.push(index.to_string()),
            Name::Key(key) => names.push(key.to_owned()),
        }
        names
    }
}

/// The rules that a payload breaks.
#[derive(Debug, Default)]
pub struct Broken(Map<String, Value>);

impl Broken {
    fn note(&mut self, place: &Place<'_>, errors: &ValidationErrors) {
        let Value::Object(rules) = listed(errors) else {
            return;
        };
        let mut inside = &mut self.0;
        for name in place.names() {
            let entry = inside
                .entry(name)
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(entry) = entry else { return };
            inside = entry;
        }
        inside.extend(rules);
    }

    /// The answer to a payload that breaks some.
    ///
    /// # Errors
    /// Those.
    pub fn answer(self, event: &str) -> Result<(), Exception> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Exception::validation(event, Value::Object(self.0))),
        }
    }
}

/// Field by field, each rule with its code, message and parameters, but never with the value that
/// was refused: it would go back to whoever reads the log of the client.
fn listed(errors: &ValidationErrors) -> Value {
    let mut listed = serde_json::to_value(errors).unwrap_or_default();
    tidy(&mut listed);
    listed
}

/// Takes out what was refused, and the name that `validator` has for a list within a list.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(inner) = fields.remove("_tmp_validator") {
                *value = inner;
                return tidy(value);
            }
            if let Some(Value::Object(params)) = fields.get_mut("params") {
                params.remove("value");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The values of the type `C` inside of a payload `R`, and the way to each of them.
/// [`check!`](crate::check) goes on from here as far as types lead.
#[derive(Debug)]
pub struct Inside<R: ?Sized, C: ?Sized, V> {
    each: V,
    of: PhantomData<fn(&R, &C)>,
}

impl<R: ?Sized, C: ?Sized, V: Copy> Clone for Inside<R, C, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: ?Sized, C: ?Sized, V: Copy> Copy for Inside<R, C, V> {}

/// What is not there: the third part of a pair.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

type Each<'a, C> = &'a mut dyn FnMut(&C, &Place<'_>);

impl<R> Inside<R, R, ()> {
    /// The payload itself.
    pub fn new() -> Inside<R, R, impl Fn(&R, Each<'_, R>) + Copy> {
        Inside::by(|root: &R, each: Each<'_, R>| each(root, &Place::WHOLE))
    }
}

impl<R: ?Sized, C: ?Sized, V: Fn(&R, Each<'_, C>) + Copy> Inside<R, C, V> {
    fn by(each: V) -> Self {
        Self {
            each,
            of: PhantomData,
        }
    }
}

impl<R: ?Sized, C: Validate, V: Fn(&R, Each<'_, C>) + Copy> Inside<R, C, V> {
    /// Notes what breaks the rules of its type.
    pub fn check(self, root: &R, broken: &mut Broken) {
        (self.each)(root, &mut |value, place| {
            if let Err(errors) = value.validate() {
                broken.note(place, &errors);
            }
        });
    }
}

/// What a type does that holds nothing, has no rules or has no parts.
pub trait Plain: Sized {
    /// Nothing is inside: it stays where it is.
    fn open(self) -> Self {
        self
    }

    /// The first part of what has no parts is the whole.
    fn part_0(self) -> Self {
        self
    }

    /// It has no second part.
    fn part_1(self) -> Nothing {
        Nothing
    }

    /// It has no third part.
    fn part_2(self) -> Nothing {
        Nothing
    }

    /// It has no fourth part.
    fn part_3(self) -> Nothing {
        Nothing
    }

    /// It has no fifth part.
    fn part_4(self) -> Nothing {
        Nothing
    }

    /// It has no sixth part.
    fn part_5(self) -> Nothing {
        Nothing
    }

    /// It has no rules.
    fn check<R: ?Sized>(self, _root: &R, _broken: &mut Broken) {}
}

impl<R: ?Sized, C: ?Sized, V> Plain for Inside<R, C, V> {}
impl Plain for Nothing {}

macro_rules! holders {
    ($([$($generic:ident $(: $bound:path)?),*] $of:ty, |$held:ident, $place:ident, $each:ident| $visit:expr;)*) => {$(
        impl<R: ?Sized, T: 'static, V, $($generic $(: $bound)?),*> Inside<R, $of, V>
        where
            V: Fn(&R, Each<'_, $of>) + Copy,
        {
            /// What it holds.
            pub fn open(self) -> Inside<R, T, impl Fn(&R, Each<'_, T>) + Copy> {
                let outer = self.each;
                Inside::by(move |root: &R, $each: Each<'_, T>| {
                    outer(root, &mut |$held, $place| $visit);
                })
            }
        }
    )*};
}

holders! {
    [] Option<T>, |held, place, each| held.iter().for_each(|it| each(it, place));
    [] Box<T>, |held, place, each| each(held, place);
    [] Rc<T>, |held, place, each| each(held, place);
    [] Arc<T>, |held, place, each| each(held, place);
    [] Vec<T>, |held, place, each| in_order(held, place, each);
    [] VecDeque<T>, |held, place, each| in_order(held, place, each);
    [] LinkedList<T>, |held, place, each| in_order(held, place, each);
    [] BTreeSet<T>, |held, place, each| in_order(held, place, each);
    [S] HashSet<T, S>, |held, place, each| in_order(held, place, each);
    [] Box<[T]>, |held, place, each| in_order(&**held, place, each);
    [] Arc<[T]>, |held, place, each| in_order(&**held, place, each);
}

fn in_order<'t, T: 't>(
    held: impl IntoIterator<Item = &'t T>,
    place: &Place<'_>,
    each: Each<'_, T>,
) {
    for (index, it) in held.into_iter().enumerate() {
        each(it, &place.at(index));
    }
}

impl<R: ?Sized, T, V, const N: usize> Inside<R, [T; N], V>
where
    V: Fn(&R, Each<'_, [T; N]>) + Copy,
{
    /// What it holds.
    pub fn open(self) -> Inside<R, T, impl Fn(&R, Each<'_, T>) + Copy> {
        let outer = self.each;
        Inside::by(move |root: &R, each: Each<'_, T>| {
            outer(root, &mut |held, place| in_order(held, place, each));
        })
    }
}

impl<R: ?Sized, T: Clone + 'static, V> Inside<R, Cow<'static, T>, V>
where
    V: Fn(&R, Each<'_, Cow<'static, T>>) + Copy,
{
    /// What it holds.
    pub fn open(self) -> Inside<R, T, impl Fn(&R, Each<'_, T>) + Copy> {
        let outer = self.each;
        Inside::by(move |root: &R, each: Each<'_, T>| {
            outer(root, &mut |held, place| each(&**held, place));
        })
    }
}

macro_rules! maps {
    ($([$($generic:ident),*] $of:ty;)*) => {$(
        impl<R: ?Sized, K: 'static, T: 'static, V, $($generic),*> Inside<R, $of, V>
        where
            V: Fn(&R, Each<'_, $of>) + Copy,
        {
            /// The values that it holds.
            pub fn open(self) -> Inside<R, T, impl Fn(&R, Each<'_, T>) + Copy> {
                let outer = self.each;
                Inside::by(move |root: &R, each: Each<'_, T>| {
                    outer(root, &mut |held, place| {
                        for (key, it) in held.iter() {
                            each(it, &place.of(key));
                        }
                    });
                })
            }
        }
    )*};
}

#[expect(
    clippy::disallowed_types,
    reason = "payloads may be of the type that we do not use"
)]
mod hashed {
    use super::*;

    maps! {
        [S] std::collections::HashMap<K, T, S>;
    }
}

maps! {
    [] BTreeMap<K, T>;
    [S] ahash::AHashMap<K, T, S>;
}

macro_rules! tuple {
    ([$($all:ident),*] $($part:ident $index:tt $type:ident),*) => {
        impl<R: ?Sized, V, $($all),*> Inside<R, ($($all,)*), V>
        where
            V: Fn(&R, Each<'_, ($($all,)*)>) + Copy,
        {
            $(
                /// One of its parts.
                pub fn $part(self) -> Inside<R, $type, impl Fn(&R, Each<'_, $type>) + Copy> {
                    let outer = self.each;
                    Inside::by(move |root: &R, each: Each<'_, $type>| {
                        outer(root, &mut |held, place| each(&held.$index, &place.at($index)));
                    })
                }
            )*
        }
    };
}

tuple!([A] part_0 0 A);
tuple!([A, B] part_0 0 A, part_1 1 B);
tuple!([A, B, C] part_0 0 A, part_1 1 B, part_2 2 C);
tuple!([A, B, C, D] part_0 0 A, part_1 1 B, part_2 2 C, part_3 3 D);
tuple!([A, B, C, D, E] part_0 0 A, part_1 1 B, part_2 2 C, part_3 3 D, part_4 4 E);
tuple!([A, B, C, D, E, F] part_0 0 A, part_1 1 B, part_2 2 C, part_3 3 D, part_4 4 E, part_5 5 F);

/// Checks the rules of a payload of a type, and of what it holds: through four holders, the parts of
/// a tuple, and four holders more. `check!(Vec<Post>, &call, &posts)` is an `Err` where one is
/// broken.
#[macro_export]
macro_rules! check {
    ($type:ty, $call:expr, $value:expr) => {{
        #[allow(unused_imports, reason = "the type decides what is needed")]
        use $crate::gateway::rules::Plain as _;
        let (value, mut broken): (&$type, _) = ($value, $crate::gateway::rules::Broken::default());
        let whole = $crate::gateway::rules::Inside::<$type, _, _>::new();
        // A holder may have rules of its own.
        let held = whole.open().open().open().open();
        held.part_0()
            .open()
            .open()
            .open()
            .open()
            .check(value, &mut broken);
        held.part_1()
            .open()
            .open()
            .open()
            .open()
            .check(value, &mut broken);
        held.part_2()
            .open()
            .open()
            .open()
            .open()
            .check(value, &mut broken);
        held.part_3()
            .open()
            .open()
            .open()
            .open()
            .check(value, &mut broken);
        held.part_4()
            .open()
            .open()
            .open()
            .open()
            .check(value, &mut broken);
        held.part_5()
            .open()
            .open()
            .open()
            .open()
            .check(value, &mut broken);
        broken.answer($call.event())
    }};
}
