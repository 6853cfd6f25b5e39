//! The registry of methods, and the tables below `[pretrain]` that are named after them.

use serde::{Deserializer, Serialize};

use super::{CommonSettings, Method};
use crate::tables::{self, Registered, Tables, read_beside};

/// Name and description of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MethodInfo {
    /// Name in recipes and on the command line.
    pub name: &'static str,
    /// Name in tables for people.
    pub title: &'static str,
    /// One-line description.
    pub about: &'static str,
}

/// Makes the registry from one line for each method, in the order in which a run makes their
/// encoders: a method may learn from the encoders of earlier ones.
macro_rules! methods {
    ($(
        $module:ident::$settings:ident, $variant:ident,
        $name:literal, $title:literal, $about:literal;
    )*) => {
        /// All methods, in the order in which a run makes their encoders.
        pub const METHODS: &[MethodInfo] = &[
            $(MethodInfo { name: $name, title: $title, about: $about },)*
        ];

        /// The settings of one method.
        #[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
        #[serde(untagged)]
        #[allow(missing_docs)] // their types have docs
        pub enum MethodSettings {
            $($variant(Box<super::$module::$settings>),)*
        }

        impl MethodSettings {
            /// The method with these settings.
            pub fn method(&self) -> &dyn Method {
                match self {
                    $(Self::$variant(settings) => &**settings,)*
                }
            }
        }

        impl Registered for MethodTable {
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
                    $($name => {
                        let (common, settings) = read_beside(table)?;
                        let method = MethodSettings::$variant(settings);
                        Ok(Self { method, common })
                    })*
                    _ => unreachable!("the base is one of the registry's names"),
                }
            }
        }
    };
}

/// The content of a table below `[pretrain]`: the keys of its method, and those that all methods share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodTable {
    /// The method's own keys.
    #[serde(flatten)]
    pub method: MethodSettings,
    /// Those that all methods share.
    #[serde(flatten)]
    pub common: CommonSettings,
}

// ANCHOR: methods
methods! {
    simclr::SimClrSettings, SimClr, "simclr", "SimCLR",
        "two augmented views, no attack: the standard encoder, and the source of pseudo-labels";
    advcl::AdvClSettings, AdvCl, "advcl", "AdvCL",
        "four views, one attacked, one of high frequencies; pseudo-labels (Fan et al., NeurIPS 2021)";
    rocl::RoclSettings, Rocl, "rocl", "RoCL",
        "two views and one attacked against the other, one BatchNorm (Kim et al., NeurIPS 2020)";
    acl::AclSettings, Acl, "acl", "ACL",
        "two views, clean and attacked: a stream for each (Jiang et al., NeurIPS 2020)";
    dynacl::DynAclSettings, DynAcl, "dynacl", "DynACL",
        "ACL with annealed augmentation and a moving average of the network (Luo et al., ICLR 2023)";
    advcl_plus::AdvClPlusSettings, AdvClPlus, "advcl+", "AdvCL+",
        "our form of AdvCL: its pseudo-labels in DynACL's two streams, one attack; a trial, see RESULTS.md";
    dynacl_plus_plus::DynAclPlusPlusSettings, DynAclPlusPlus, "dynacl++", "DynACL++",
        "DynACL, then TRADES on pseudo-labels of its own features: a table [pretrain.\"dynacl++\"]";
    deacl::DeaclSettings, Deacl, "deacl", "DeACL",
        "distilled from a standard encoder, attacked away from it (Zhang et al., ECCV 2022)";
    supervised::SupervisedSettings, Supervised, "supervised", "Supervised",
        "all labels, no attack, end to end: accurate, and falls to any attack";
    adversarial_training::AdversarialTrainingSettings, AdversarialTraining,
        "adversarial-training", "Adversarial training",
        "PGD with all labels, end to end: a ceiling (Madry et al., ICLR 2018)";
    trades::TradesSettings, Trades, "trades", "TRADES",
        "accuracy and robustness weighed, with all labels, end to end: a ceiling (Zhang et al., ICML 2019)";
}
// ANCHOR_END: methods

/// The encoders to make: the tables below `[pretrain]`, in the order in which a run makes them.
pub type Pretrain = Tables<MethodTable>;

/// A table below `[pretrain]`: a method, or one of several variants of it.
pub type Entry = tables::Entry<MethodTable>;

impl Entry {
    /// The method with the table's settings.
    pub fn method(&self) -> &dyn Method {
        self.settings.method.method()
    }

    /// Temperature of its contrastive loss; none of a method without such a loss.
    pub fn temperature(&self) -> Option<f64> {
        let settings = serde_json::to_value(&self.settings.method).ok()?;
        settings.get("temperature")?.as_f64()
    }

    /// The keys that all methods share.
    pub fn common(&self) -> &CommonSettings {
        &self.settings.common
    }
}

/// A table's name as written for people, "AdvCL (without-clusters)"; the name itself if it is
/// unknown.
pub fn title(name: &str) -> String {
    tables::title::<MethodTable>(name).unwrap_or_else(|| name.to_owned())
}
