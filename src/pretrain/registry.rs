//! The registry of methods, and the tables below `[pretrain]`, each named after its method.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::Method;
use crate::check::{self, Kind};
use crate::error::Result;

/// What is said of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct About {
    /// As written in recipes and on the command line.
    pub name: &'static str,
    /// As written in tables for people.
    pub title: &'static str,
    /// A line.
    pub about: &'static str,
}

/// Makes the registry from a line a method, in the order in which a run makes them: later ones may use what earlier
/// ones made.
macro_rules! methods {
    ($($variant:ident, $module:ident, $name:literal, $title:literal, $about:literal;)*) => {
        /// The methods, in the order in which a run makes them.
        pub const METHODS: &[About] = &[
            $(About { name: $name, title: $title, about: $about },)*
        ];

        /// A method's settings.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        #[allow(missing_docs)] // each is its module's
        pub enum Settings {
            $($variant(Box<super::$module::Settings>),)*
        }

        impl Settings {
            /// What they do.
            pub fn method(&self) -> &dyn Method {
                match self {
                    $(Self::$variant(settings) => &**settings,)*
                }
            }

            fn about(&self) -> &'static About {
                let name = match self {
                    $(Self::$variant(_) => $name,)*
                };
                METHODS.iter().find(|about| about.name == name).expect("it is in the registry")
            }

            fn read<'de, D: Deserializer<'de>>(method: &About, from: D) -> Result<Self, D::Error> {
                match method.name {
                    $($name => Deserialize::deserialize(from).map(Self::$variant),)*
                    _ => unreachable!("it is in the registry"),
                }
            }
        }
    };
}

methods! {
    Simclr, simclr, "simclr", "SimCLR",
        "two augmented views, no attack: the standard encoder, and the source of pseudo-labels";
    Advcl, advcl, "advcl", "AdvCL",
        "four views, one attacked, one of high frequencies; pseudo-labels (Fan et al., NeurIPS 2021)";
    Rocl, rocl, "rocl", "RoCL",
        "two views and one attacked against the other, one BatchNorm (Kim et al., NeurIPS 2020)";
    Acl, acl, "acl", "ACL",
        "two views, clean and attacked: a stream for each (Jiang et al., NeurIPS 2020)";
    Dynacl, dynacl, "dynacl", "DynACL",
        "ACL with annealed augmentation and a moving average of the network (Luo et al., ICLR 2023)";
    DynaclPlusPlus, dynacl_plus_plus, "dynacl++", "DynACL++",
        "DynACL, then TRADES on pseudo-labels of its own features: a table [pretrain.\"dynacl++\"]";
    Deacl, deacl, "deacl", "DeACL",
        "distilled from a standard encoder, attacked away from it (Zhang et al., ECCV 2022)";
    Supervised, supervised, "supervised", "Supervised",
        "all labels, no attack, end to end: accurate, and falls to any attack";
    AdversarialTraining, adversarial_training, "adversarial-training", "Adversarial training",
        "PGD with all labels, end to end: a ceiling (Madry et al., ICLR 2018)";
    Trades, trades, "trades", "TRADES",
        "accuracy and robustness weighed, with all labels, end to end: a ceiling (Zhang et al., ICML 2019)";
}

/// A table below `[pretrain]`: a method, or one of several variants of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The method's name; a variant goes on with a hyphen and a name of its own: "advcl-without-clusters".
    pub name: String,
    /// What the table says.
    pub settings: Settings,
}

impl Entry {
    /// What it does.
    pub fn method(&self) -> &dyn Method {
        self.settings.method()
    }

    /// As written in tables for people: "AdvCL", "AdvCL (without-clusters)".
    pub fn title(&self) -> String {
        title(&self.name)
    }

    /// Place in the registry, then alphabetically.
    fn order(&self) -> (usize, &str) {
        let about = self.settings.about();
        let place = METHODS.iter().position(|other| other == about);
        (place.unwrap_or(METHODS.len()), &self.name)
    }
}

/// The method of a table's name.
fn method_of(name: &str) -> Option<&'static About> {
    let base = check::base(name, METHODS.iter().map(|about| about.name))?;
    METHODS.iter().find(|about| about.name == base)
}

/// A table's name as written for people: "AdvCL", "AdvCL (without-clusters)".
pub fn title(name: &str) -> String {
    match method_of(name) {
        Some(about) => check::title(name, about.name, about.title),
        None => name.to_owned(),
    }
}

fn kind() -> Kind<'static> {
    Kind {
        what: "pretraining method",
        table: "pretrain",
        option: "method",
        known: METHODS.iter().map(|about| about.name).collect(),
    }
}

/// The encoders to make: a table each, named after its method. In the registry's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretrain(Vec<Entry>);

impl Pretrain {
    /// All tables, in the order in which a run makes them.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The table of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.name == name)
    }

    /// As [`Pretrain::get`].
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe), which tells a name that no method has from a method that the recipe has no table for.
    pub fn require(&self, name: &str) -> Result<&Entry> {
        self.get(name).ok_or_else(|| {
            let there: Vec<&str> = self.0.iter().map(|entry| entry.name.as_str()).collect();
            kind().missing(name, &there)
        })
    }
}

impl Serialize for Pretrain {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|entry| (&entry.name, &entry.settings)))
    }
}

impl<'de> Deserialize<'de> for Pretrain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Tables)
    }
}

/// A table's name and its method. It is refused while it is read, so that the error has its line.
struct Name(String, &'static About);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        if let Some(problem) = kind().wrong(&name) {
            return Err(serde::de::Error::custom(problem));
        }
        let method = method_of(&name).expect("just checked");
        Ok(Self(name, method))
    }
}

struct Tables;

impl<'de> Visitor<'de> for Tables {
    type Value = Pretrain;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("tables named after pretraining methods")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pretrain, A::Error> {
        struct Seed(&'static About);
        impl<'de> DeserializeSeed<'de> for Seed {
            type Value = Settings;
            fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Settings, D::Error> {
                Settings::read(self.0, from)
            }
        }
        let mut entries = Vec::new();
        while let Some(Name(name, method)) = map.next_key()? {
            let settings = map.next_value_seed(Seed(method))?;
            entries.push(Entry { name, settings });
        }
        entries.sort_by(|a, b| a.order().cmp(&b.order()));
        Ok(Pretrain(entries))
    }
}
