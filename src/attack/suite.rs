//! Attacks by name, one after the other: what a recipe or `--attack` asks for.

use serde::{Deserialize, Serialize, Serializer};
use toml::{Table, Value};

use super::apgd::Loss;
use super::{Apgd, Fab, Found, Noise, Restarted, Square, Tell, Victim, fgsm};
use crate::error::{Result, nearest};

/// One attack with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Attack {
    /// Projected gradient ascent on the cross-entropy.
    Pgd(Restarted),
    /// Auto-PGD on the cross-entropy.
    ApgdCe(Apgd),
    /// Auto-PGD on the difference of logits ratio.
    ApgdDlr(Apgd),
    /// Auto-PGD on the targeted difference of logits ratio.
    ApgdT(Apgd),
    /// Fast adaptive boundary attack.
    Fab(Fab),
    /// The same, target by target.
    FabT(Fab),
    /// Random squares: black box.
    Square(Square),
    /// One step.
    Fgsm,
    /// Random points.
    Noise(Noise),
}

/// The names of single attacks.
const KINDS: [&str; 9] = [
    "pgd", "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square", "fgsm", "noise",
];

/// The names of compositions.
const COMPOSITIONS: [&str; 3] = ["autoattack", "standard", "rand"];

/// Gradients of AutoAttack's version for random classifiers.
const EOT: usize = 20;

impl Attack {
    /// With its published settings; none of that name otherwise.
    fn published(kind: &str) -> Option<Self> {
        Some(match kind {
            "pgd" => Self::Pgd(Restarted::default()),
            "apgd-ce" => Self::ApgdCe(Apgd::default()),
            "apgd-dlr" => Self::ApgdDlr(Apgd::default()),
            "apgd-t" => Self::ApgdT(Apgd::targeted()),
            "fab" => Self::Fab(Fab {
                targets: 0,
                restarts: 5,
                ..Fab::default()
            }),
            "fab-t" => Self::FabT(Fab {
                targets: 9,
                restarts: 1,
                ..Fab::default()
            }),
            "square" => Self::Square(Square::default()),
            "fgsm" => Self::Fgsm,
            "noise" => Self::Noise(Noise::default()),
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pgd(_) => "pgd",
            Self::ApgdCe(_) => "apgd-ce",
            Self::ApgdDlr(_) => "apgd-dlr",
            Self::ApgdT(_) => "apgd-t",
            Self::Fab(_) => "fab",
            Self::FabT(_) => "fab-t",
            Self::Square(_) => "square",
            Self::Fgsm => "fgsm",
            Self::Noise(_) => "noise",
        }
    }

    /// Attacks.
    ///
    /// # Errors
    /// What `tell` answers; [`Error::Logits`](crate::Error::Logits) for logits that are not finite.
    pub fn run(&self, victim: &Victim, tell: Tell) -> Result<Found> {
        match self {
            Self::Pgd(pgd) => pgd.run(victim, tell),
            Self::ApgdCe(apgd) => apgd.run(victim, Loss::CrossEntropy, tell),
            Self::ApgdDlr(apgd) => apgd.run(victim, Loss::Dlr, tell),
            Self::ApgdT(apgd) => apgd.run(victim, Loss::TargetedDlr, tell),
            Self::Fab(fab) | Self::FabT(fab) => fab.run(victim, tell),
            Self::Square(square) => square.run(victim, tell),
            Self::Fgsm => fgsm::run(victim, tell),
            Self::Noise(noise) => noise.run(victim, tell),
        }
    }

    /// The attack that a table describes: its `kind`, and what differs from the published settings.
    fn described(mut table: Table) -> Result<Self, String> {
        let kind = match table.remove("kind") {
            Some(Value::String(kind)) => kind,
            Some(other) => return Err(format!("kind: expected a name, found {other}")),
            None => return Err("expected a kind, such as kind = \"apgd-ce\"".to_owned()),
        };
        let published = Self::published(&kind)
            .ok_or_else(|| format!("unknown attack {kind:?}: {}", nearest(&kind, KINDS)))?;
        let mut settings = Table::try_from(&published).map_err(|error| error.to_string())?;
        for (key, value) in table {
            let known = settings.keys().map(String::as_str);
            let known: Vec<&str> = known.filter(|key| *key != "kind").collect();
            if !known.contains(&key.as_str()) {
                let hint = match &known[..] {
                    [] => "it has none".to_owned(),
                    known => nearest(&key, known.iter().copied()),
                };
                return Err(format!("unknown setting {key:?} of {kind}: {hint}"));
            }
            // What is published is possible: untargeted FAB has 0 targets.
            let published = settings.get(&key) == Some(&value);
            let expected = match value {
                _ if published => None,
                Value::Integer(count) if count < 1 => Some("1 or more"),
                Value::Float(share) if !(share > 0.0 && share.is_finite()) => Some("more than 0"),
                _ => None,
            };
            if let Some(expected) = expected {
                return Err(format!(
                    "{key} of {kind}: expected {expected}, found {value}"
                ));
            }
            settings.insert(key, value);
        }
        let attack: Self = settings
            .try_into()
            .map_err(|error: toml::de::Error| format!("{kind}: {}", error.message()))?;
        let possible = match &attack {
            Self::Fab(fab) | Self::FabT(fab) => fab.check(),
            Self::Square(square) => square.check(),
            _ => Ok(()),
        };
        possible.map_err(|problem| format!("{kind}: {problem}"))?;
        Ok(attack)
    }
}

/// Attacks, each on what the ones before it left.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Given")]
pub struct Suite {
    /// None for a list.
    name: Option<String>,
    attacks: Vec<Attack>,
}

/// A suite as it is written.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected the name of an attack, or a list of tables such as { kind = \"apgd-ce\" }"
)]
enum Given {
    Name(String),
    List(Vec<Table>),
}

impl TryFrom<Given> for Suite {
    type Error = String;

    fn try_from(given: Given) -> Result<Self, String> {
        match given {
            Given::Name(name) => Self::named(&name),
            Given::List(tables) => {
                let attacks: Result<Vec<Attack>, String> =
                    tables.into_iter().map(Attack::described).collect();
                match attacks? {
                    attacks if attacks.is_empty() => Err("expected at least one attack".to_owned()),
                    attacks => Ok(Self {
                        name: None,
                        attacks,
                    }),
                }
            }
        }
    }
}

impl Serialize for Suite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.name {
            Some(name) => serializer.serialize_str(name),
            None => self.attacks.serialize(serializer),
        }
    }
}

impl Suite {
    /// A published composition, or a single attack with its published settings.
    ///
    /// "autoattack" (also "standard") is AutoAttack's standard version, "rand" its version for random classifiers.
    ///
    /// # Errors
    /// In words, with the nearest name that there is.
    pub fn named(name: &str) -> Result<Self, String> {
        let random = Apgd {
            eot: EOT,
            ..Apgd::default()
        };
        let parts = |kinds: &[&str]| {
            let attacks = kinds.iter().map(|kind| Attack::published(kind));
            attacks.collect::<Option<Vec<_>>>()
        };
        let attacks = match name {
            "autoattack" | "standard" => parts(&["apgd-ce", "apgd-t", "fab-t", "square"]),
            "rand" => Some(vec![
                Attack::ApgdCe(random.clone()),
                Attack::ApgdDlr(random),
            ]),
            kind => parts(&[kind]),
        };
        let known = COMPOSITIONS.into_iter().chain(KINDS);
        Ok(Self {
            attacks: attacks
                .ok_or_else(|| format!("unknown attack {name:?}: {}", nearest(name, known)))?,
            name: Some(name.to_owned()),
        })
    }

    /// As the recipe names it: "autoattack", "square"; "custom" for a list.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("custom")
    }

    /// In order.
    pub fn attacks(&self) -> &[Attack] {
        &self.attacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Key {
        attack: Suite,
        limit: usize,
    }

    fn parse(text: &str) -> Result<Suite, String> {
        let key: Result<Key, _> = toml::from_str(&format!("attack = {text}\nlimit = 3"));
        key.map(|key| key.attack)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn every_name_is_an_attack_with_published_settings() {
        for kind in KINDS {
            let suite = Suite::named(kind).expect(kind);
            assert_eq!((suite.name(), suite.attacks()[0].name()), (kind, kind));
            let written = parse(&format!("[{{ kind = {kind:?} }}]")).expect(kind);
            // With every setting, as a run folder keeps it.
            let text = serde_json::to_string(&written).expect("plain values");
            assert_eq!(serde_json::from_str::<Suite>(&text).expect(&text), written);
            assert_eq!(
                (written.name(), written.attacks()),
                ("custom", suite.attacks())
            );
        }
        for (name, expected) in [
            ("autoattack", &["apgd-ce", "apgd-t", "fab-t", "square"][..]),
            ("standard", &["apgd-ce", "apgd-t", "fab-t", "square"]),
            ("rand", &["apgd-ce", "apgd-dlr"]),
        ] {
            let suite = Suite::named(name).expect(name);
            let names: Vec<&str> = suite.attacks().iter().map(Attack::name).collect();
            assert_eq!((suite.name(), &names[..]), (name, expected));
        }
        let suite = Suite::named("fab-t").expect("FAB");
        let Attack::FabT(fab) = &suite.attacks()[0] else {
            panic!("another attack");
        };
        assert_eq!((fab.targets, fab.restarts, fab.iterations), (9, 1, 100));
    }

    #[test]
    fn a_list_changes_settings_and_is_written_as_it_is_read() {
        let text =
            "[{ kind = \"square\", queries = 300 }, { kind = \"apgd-t\", targets = 3, rho = 1 }]";
        let suite = parse(text).expect("a list");
        let Attack::ApgdT(apgd) = &suite.attacks()[1] else {
            panic!("another attack");
        };
        let expected = Apgd {
            targets: 3,
            rho: 1.0,
            ..Apgd::targeted()
        };
        assert_eq!(apgd, &expected);
        for attack in [suite, Suite::named("rand").expect("a name")] {
            let key = Key { attack, limit: 3 };
            let text = toml::to_string(&key).expect("plain values");
            assert_eq!(toml::from_str::<Key>(&text).expect(&text), key);
            let json = serde_json::to_string(&key).expect("plain values");
            assert_eq!(serde_json::from_str::<Key>(&json).expect(&json), key);
        }
    }

    #[test]
    fn what_is_no_attack_is_told() {
        for (text, words) in [
            (
                "\"autoatack\"",
                "unknown attack \"autoatack\": did you mean \"autoattack\"?",
            ),
            ("\"zzz\"", "known: autoattack, standard, rand, pgd, apgd-ce"),
            ("3", "expected the name of an attack, or a list of tables"),
            ("[]", "expected at least one attack"),
            ("[{ queries = 3 }]", "expected a kind"),
            ("[{ kind = 3 }]", "kind: expected a name, found 3"),
            ("[{ kind = \"sqare\" }]", "did you mean \"square\"?"),
            (
                "[{ kind = \"square\", querys = 3 }]",
                "unknown setting \"querys\" of square: did you mean \"queries\"?",
            ),
            (
                "[{ kind = \"apgd-ce\", targets = 3 }]",
                "unknown setting \"targets\" of apgd-ce",
            ),
            (
                "[{ kind = \"fgsm\", iterations = 3 }]",
                "unknown setting \"iterations\" of fgsm: it has none",
            ),
            (
                "[{ kind = \"square\", queries = 0 }]",
                "queries of square: expected 1 or more, found 0",
            ),
            (
                "[{ kind = \"apgd-ce\", rho = nan }]",
                "rho of apgd-ce: expected more than 0, found nan",
            ),
            ("[{ kind = \"square\", queries = \"many\" }]", "square: "),
            (
                "[{ kind = \"square\", p_init = 3.0 }]",
                "square: p_init: expected a share above 0, at most 1, found 3",
            ),
            (
                "[{ kind = \"fab-t\", eta = 0.5 }]",
                "fab-t: eta: expected 1 or more, found 0.5",
            ),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
