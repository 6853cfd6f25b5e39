//! Recipe tables that are named after the entries of a registry: `[pretrain.METHOD]` and
//! `[finetune.MODE]`.
//!
//! A recipe may have several tables for one method or mode. The additional ones are variants: their
//! name goes on with a hyphen and a name of their own, `[pretrain.advcl-without-clusters]`. Names
//! of tables become names of folders.

mod shared;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, nearest};

pub use shared::{Shared, read_beside};

/// The content of a table that is named after an entry of a registry, and that registry.
pub trait Registered: Sized {
    /// Description of an entry: "pretraining method".
    const WHAT: &'static str;
    /// The table above the tables: "pretrain".
    const PARENT: &'static str;
    /// The command line's option that names one: "method".
    const OPTION: &'static str;

    /// Name in recipes and title for people of each entry, in the order in which a run uses them.
    fn registry() -> impl Iterator<Item = (&'static str, &'static str)>;

    /// Reads a table of the registry's entry `base`.
    ///
    /// # Errors
    /// The deserializer's, for unknown keys and values of another type.
    fn read<'de, D: Deserializer<'de>>(base: &'static str, table: D) -> Result<Self, D::Error>;
}

/// A table below `[pretrain]` or `[finetune]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<S> {
    /// The table's name: "advcl", or a variant, "advcl-without-clusters".
    pub name: String,
    /// The content.
    pub settings: S,
    /// Name in the registry: "advcl".
    base: &'static str,
}

impl<S: Registered> Entry<S> {
    /// The name of the method or mode, without the variant's: "advcl".
    pub fn base(&self) -> &'static str {
        self.base
    }

    /// The name as written for people: "AdvCL", "AdvCL (without-clusters)".
    pub fn title(&self) -> String {
        title::<S>(&self.name).expect("the name was checked when it was read")
    }
}

/// A table's name as written for people, "AdvCL (without-clusters)"; nothing for a name that no
/// entry of the registry begins.
pub fn title<S: Registered>(name: &str) -> Option<String> {
    let base = base::<S>(name)?;
    let (_, title) = S::registry().find(|(known, _)| *known == base)?;
    match name[base.len()..].trim_start_matches('-') {
        "" => Some(title.to_owned()),
        variant => Some(format!("{title} ({variant})")),
    }
}

/// The longest name in the registry that `name` is, or that it continues with a hyphen.
fn base<S: Registered>(name: &str) -> Option<&'static str> {
    let begins = |known: &&str| {
        let rest = name.strip_prefix(known);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-') && rest.len() > 1)
    };
    let known = S::registry().map(|(known, _)| known);
    known.filter(begins).max_by_key(|known| known.len())
}

/// Problem and hint for a name that the registry does not have; the hint has the nearest name.
fn unknown<S: Registered>(name: &str) -> (String, String) {
    let hint = nearest(name, S::registry().map(|(known, _)| known));
    (format!("no {} {name:?}", S::WHAT), hint)
}

/// All tables below `[pretrain]` or `[finetune]`, in the order of the registry; variants of one
/// entry in alphabetical order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables<S>(Vec<Entry<S>>);

impl<S: Registered> Tables<S> {
    /// All tables, in the order in which a run uses them.
    pub fn entries(&self) -> &[Entry<S>] {
        &self.0
    }

    /// The table of that name.
    pub fn get(&self, name: &str) -> Option<&Entry<S>> {
        self.0.iter().find(|entry| entry.name == name)
    }

    /// The table of that name, which must exist.
    ///
    /// # Errors
    /// [`Error::Recipe`]; its message distinguishes a name that the registry does not have from one
    /// that only this recipe lacks.
    pub fn require(&self, name: &str) -> Result<&Entry<S>> {
        self.get(name).ok_or_else(|| {
            if base::<S>(name).is_none() {
                let (problem, hint) = unknown::<S>(name);
                return Error::recipe(S::OPTION, problem, hint);
            }
            let names: Vec<&str> = self.0.iter().map(|entry| entry.name.as_str()).collect();
            let problem = format!("no table [{}.{name}]", S::PARENT);
            let hint = format!("add it to the recipe, which has {}", names.join(", "));
            Error::recipe(S::PARENT, problem, hint)
        })
    }
}

impl<S: Serialize> Serialize for Tables<S> {
    fn serialize<T: Serializer>(&self, to: T) -> Result<T::Ok, T::Error> {
        to.collect_map(self.0.iter().map(|entry| (&entry.name, &entry.settings)))
    }
}

impl<'de, S: Registered> Deserialize<'de> for Tables<S> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Reader(PhantomData))
    }
}

/// Reads tables one by one: first the name, then the content as the name's entry wants it.
struct Reader<S>(PhantomData<S>);

impl<'de, S: Registered> Visitor<'de> for Reader<S> {
    type Value = Tables<S>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "tables named after {}s", S::WHAT)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tables<S>, A::Error> {
        let mut entries = Vec::new();
        while let Some((name, base)) = map.next_key_seed(Name::<S>(PhantomData))? {
            let settings = map.next_value_seed(Content::<S>(base, PhantomData))?;
            entries.push(Entry {
                name,
                settings,
                base,
            });
        }
        entries.sort_by_key(|entry| {
            let place = S::registry().position(|(known, _)| known == entry.base);
            (place, entry.name.clone())
        });
        Ok(Tables(entries))
    }
}

/// Reads a table's name and finds its base. A wrong name is refused here rather than later, so that
/// the error has the name's line and column.
struct Name<S>(PhantomData<S>);

impl<'de, S: Registered> DeserializeSeed<'de> for Name<S> {
    type Value = (String, &'static str);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        let name = String::deserialize(from)?;
        let Some(base) = base::<S>(&name) else {
            let (problem, hint) = unknown::<S>(&name);
            return Err(D::Error::custom(format!("{problem}; {hint}")));
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
        if !name.chars().all(allowed) {
            let problem = format!("{name:?}: a variant is named with letters, digits, - and _");
            return Err(D::Error::custom(problem));
        }
        Ok((name, base))
    }
}

/// Reads a table's content.
struct Content<S>(&'static str, PhantomData<S>);

impl<'de, S: Registered> DeserializeSeed<'de> for Content<S> {
    type Value = S;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<S, D::Error> {
        S::read(self.0, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fruit {
        weight: u32,
    }

    impl Registered for Fruit {
        const WHAT: &'static str = "kind of fruit";
        const PARENT: &'static str = "fruits";
        const OPTION: &'static str = "fruit";

        fn registry() -> impl Iterator<Item = (&'static str, &'static str)> {
            [("pear", "Pear"), ("apple", "Apple"), ("apple++", "Apple++")].into_iter()
        }

        fn read<'de, D: Deserializer<'de>>(_: &'static str, table: D) -> Result<Self, D::Error> {
            Self::deserialize(table)
        }
    }

    fn read(text: &str) -> Result<Tables<Fruit>, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn tables_come_in_the_registrys_order_and_are_written_again() {
        let text =
            "apple-red.weight = 1\n'apple++'.weight = 2\napple.weight = 3\npear.weight = 4\n";
        let tables = read(text).expect("four tables");
        let seen: Vec<_> = tables.entries().iter().map(Entry::title).collect();
        assert_eq!(seen, ["Pear", "Apple", "Apple (red)", "Apple++"]);
        assert_eq!(tables.entries()[2].base(), "apple");
        assert_eq!(
            tables.get("pear").map(|entry| entry.settings.weight),
            Some(4)
        );
        let again = toml::to_string(&tables).expect("tables of plain values");
        assert_eq!(read(&again), Ok(tables));
        assert_eq!(title::<Fruit>("plum"), None);
        assert_eq!(title::<Fruit>("apple-"), None);
    }

    #[test]
    fn mistakes_are_refused_where_they_are() {
        for (table, place, words) in [
            (
                "[plum]\nweight = 1",
                "plum",
                "no kind of fruit \"plum\"; known: pear, apple, apple++",
            ),
            ("[aple]\nweight = 1", "aple", "did you mean \"apple\"?"),
            (
                "['pear-a b']",
                "'pear-a b'",
                "a variant is named with letters, digits, - and _",
            ),
            (
                "[pear]\nweigth = 1",
                "weigth",
                "unknown field `weigth`, expected `weight`",
            ),
            ("[pear]\nweight = -1", "-1", "invalid value"),
        ] {
            let text = format!("[apple]\nweight = 1\n{table}\n");
            let error = read(&text).expect_err(table);
            assert!(error.message().contains(words), "{error}");
            assert_eq!(error.span().map(|span| &text[span]), Some(place), "{error}");
        }
    }

    #[test]
    fn an_unknown_name_is_told_apart_from_one_that_the_recipe_lacks() {
        let tables = read("[apple]\nweight = 1\n").expect("a table");
        let error = |name| {
            let error = tables.require(name).expect_err("no such table");
            format!("{error}; {}", error.hint().unwrap_or_default())
        };
        let unknown = "recipe fruit: no kind of fruit \"pera\"; did you mean \"pear\"?";
        assert_eq!(error("pera"), unknown);
        let lacking =
            "recipe fruits: no table [fruits.pear]; add it to the recipe, which has apple";
        assert_eq!(error("pear"), lacking);
    }
}
