//! Keys that all tables of a registry share, read beside those that belong to one entry.
//!
//! Serde's own way, `flatten`, buffers a table, and errors then have neither line nor column; nor can it refuse unknown
//! keys.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Keys that every table of a registry may have.
pub trait Shared: Default {
    /// Names of the keys.
    const KEYS: &'static [&'static str];

    /// Takes the value of one of the keys from `map`, which has just given its name.
    ///
    /// # Errors
    /// The deserializer's, for a value of another type.
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Reads the shared keys of a table, and everything else in it as a `T`.
///
/// # Errors
/// The deserializer's, with their places; for a key that is neither shared nor one of `T`'s.
pub fn read_beside<'de, S: Shared, T: Deserialize<'de>, D: Deserializer<'de>>(
    table: D,
) -> Result<(S, T), D::Error> {
    let mut shared = S::default();
    let others = T::deserialize(Others {
        table,
        shared: &mut shared,
    })?;
    Ok((shared, others))
}

/// Table without its shared keys, which are put aside as they come.
struct Others<'a, D, S> {
    table: D,
    shared: &'a mut S,
}

impl<'de, D: Deserializer<'de>, S: Shared> Deserializer<'de> for Others<'_, D, S> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        own: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.table.deserialize_map(OthersOf {
            visitor,
            own,
            shared: self.shared,
        })
    }

    /// Passes on what is no struct: it has no keys beside which others could stand.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.table.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Visitor of a struct that is shown all keys but the shared ones.
struct OthersOf<'a, V, S> {
    visitor: V,
    own: &'static [&'static str],
    shared: &'a mut S,
}

impl<'de, V: Visitor<'de>, S: Shared> Visitor<'de> for OthersOf<'_, V, S> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(OtherKeys {
            map,
            own: self.own,
            shared: self.shared,
        })
    }
}

struct OtherKeys<'a, A, S> {
    map: A,
    own: &'static [&'static str],
    shared: &'a mut S,
}

impl<'de, A: MapAccess<'de>, S: Shared> MapAccess<'de> for OtherKeys<'_, A, S> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let mut seed = Some(seed);
        loop {
            let key = Key::<K, S> {
                seed: &mut seed,
                own: self.own,
                shared: PhantomData,
            };
            match self.map.next_key_seed(key)? {
                None => return Ok(None),
                Some(Found::Own(value)) => return Ok(Some(value)),
                Some(Found::Shared(name)) => self.shared.take(name, &mut self.map)?,
            }
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A key of the table.
enum Found<T> {
    /// Name of a shared key.
    Shared(&'static str),
    /// Key of the struct, as its seed reads it.
    Own(T),
}

/// Reads a key's name. An unknown one is refused here, where the deserializer knows its line and column.
struct Key<'a, K, S> {
    /// Seed of the struct's keys, which is taken for the first of them.
    seed: &'a mut Option<K>,
    own: &'static [&'static str],
    shared: PhantomData<S>,
}

impl<'de, K: DeserializeSeed<'de>, S: Shared> DeserializeSeed<'de> for Key<'_, K, S> {
    type Value = Found<K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        let name = String::deserialize(from)?;
        if let Some(shared) = S::KEYS.iter().find(|key| **key == name) {
            return Ok(Found::Shared(shared));
        }
        if !self.own.contains(&name.as_str()) {
            let known = self.own.iter().chain(S::KEYS);
            let known: Vec<String> = known.map(|key| format!("`{key}`")).collect();
            let known = known.join(", ");
            let problem = format!("unknown field `{name}`, expected one of {known}");
            return Err(D::Error::custom(problem));
        }
        let seed = self.seed.take().expect("no key was read with it before");
        let name = StringDeserializer::<D::Error>::new(name);
        seed.deserialize(name).map(Found::Own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Basket {
        size: u32,
    }

    impl Shared for Basket {
        const KEYS: &'static [&'static str] = &["size"];

        fn take<'de, A: MapAccess<'de>>(&mut self, _: &str, map: &mut A) -> Result<(), A::Error> {
            self.size = map.next_value()?;
            Ok(())
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fruit {
        weight: u32,
        #[serde(default)]
        name: Option<String>,
    }

    fn read(text: &str) -> Result<(Basket, Fruit), toml::de::Error> {
        read_beside(toml::Deserializer::parse(text)?)
    }

    #[test]
    fn shared_keys_stand_anywhere_among_the_others_or_nowhere() {
        let pear = |size, name: Option<&str>| {
            let name = name.map(str::to_owned);
            (Basket { size }, Fruit { weight: 3, name })
        };
        assert_eq!(read("weight = 3"), Ok(pear(0, None)));
        for text in [
            "size = 2\nweight = 3\nname = 'pear'",
            "weight = 3\nsize = 2\nname = 'pear'",
            "weight = 3\nname = 'pear'\nsize = 2",
        ] {
            assert_eq!(read(text), Ok(pear(2, Some("pear"))), "{text}");
        }
    }

    #[test]
    fn mistakes_are_refused_where_they_are() {
        for (text, place, words) in [
            (
                "weight = 3\nsiez = 1",
                "siez",
                "unknown field `siez`, expected one of `weight`, `name`, `size`",
            ),
            ("size = 'x'\nweight = 3", "'x'", "expected u32"),
            ("size = 1\nweight = -3", "-3", "expected u32"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.message().contains(words), "{error}");
            assert_eq!(error.span().map(|span| &text[span]), Some(place), "{error}");
        }
        let error = read("size = 1").expect_err("a key that must be there");
        assert!(
            error.message().contains("missing field `weight`"),
            "{error}"
        );
    }
}
