//! The registry of methods, and the tables below `[pretrain]`, each named after its method.

use serde::{Deserialize, Deserializer, Serialize};

use super::Method;
use crate::tables::{self, Registered, Tables};

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
        #[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
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
        }

        impl Registered for Settings {
            const WHAT: &'static str = "pretraining method";
            const PARENT: &'static str = "pretrain";
            const OPTION: &'static str = "method";

            fn registry() -> impl Iterator<Item = (&'static str, &'static str)> {
                METHODS.iter().map(|method| (method.name, method.title))
            }

            fn read<'de, D: Deserializer<'de>>(
                base: &'static str,
                table: D,
            ) -> Result<Self, D::Error> {
                match base {
                    $($name => Deserialize::deserialize(table).map(Self::$variant),)*
                    _ => unreachable!("the base is one of the registry's names"),
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

/// The encoders to make: the tables below `[pretrain]`, in the order in which a run makes them.
pub type Pretrain = Tables<Settings>;

/// A table below `[pretrain]`: a method, or one of several variants of it.
pub type Entry = tables::Entry<Settings>;

impl Entry {
    /// What it does.
    pub fn method(&self) -> &dyn Method {
        self.settings.method()
    }
}

/// A table's name as written for people: "AdvCL", "AdvCL (without-clusters)".
pub fn title(name: &str) -> String {
    tables::title::<Settings>(name).unwrap_or_else(|| name.to_owned())
}
