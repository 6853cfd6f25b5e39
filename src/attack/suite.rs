//! Attacks by name, one after the other: the value of a recipe's `attack` key or of `--attack`.

use serde::{Deserialize, Serialize, Serializer};
use toml::{Table, Value};

use super::apgd::ApgdLoss;
use super::{
    Apgd, AttackKind, AttackResult, Fab, Noise, Progress, RestartedPgd, Square, TargetedApgd,
    Victim, fgsm,
};
use crate::error::{Result, nearest};

/// An attack with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Attack {
    /// Projected gradient ascent on the cross-entropy.
    Pgd(RestartedPgd),
    /// Auto-PGD on the cross-entropy.
    ApgdCe(Apgd),
    /// Auto-PGD on the difference of logits ratio.
    ApgdDlr(Apgd),
    /// Auto-PGD on the targeted difference of logits ratio.
    ApgdT(TargetedApgd),
    /// Fast adaptive boundary attack on the nearest boundary.
    Fab(Fab),
    /// Fast adaptive boundary attack, target by target.
    FabT(Fab),
    /// Random search by square windows, without gradients.
    Square(Square),
    /// One step along the gradient's sign.
    Fgsm,
    /// Random points of the ball.
    Noise(Noise),
}

/// Name of AutoAttack's standard version in results.
pub const AUTOATTACK: &str = "autoattack";
/// RobustBench's name of it, which is understood too.
const STANDARD: &str = "standard";
/// Names of attacks that are composed of several.
const COMPOSITIONS: [&str; 3] = [AUTOATTACK, STANDARD, "rand"];

/// Name of a suite in results, where it may have several.
pub fn suite_name(name: &str) -> &str {
    match name {
        STANDARD => AUTOATTACK,
        other => other,
    }
}

/// Gradients for each step in AutoAttack's version for random classifiers.
const EOT: usize = 20;

impl Attack {
    /// Attack with its published settings.
    pub fn published(kind: AttackKind) -> Self {
        match kind {
            AttackKind::Pgd => Self::Pgd(RestartedPgd::default()),
            AttackKind::ApgdCe => Self::ApgdCe(Apgd::default()),
            AttackKind::ApgdDlr => Self::ApgdDlr(Apgd::default()),
            AttackKind::ApgdT => Self::ApgdT(TargetedApgd::default()),
            AttackKind::Fab => Self::Fab(Fab {
                targets: 0,
                restarts: 5,
                ..Fab::default()
            }),
            AttackKind::FabT => Self::FabT(Fab {
                targets: 9,
                restarts: 1,
                ..Fab::default()
            }),
            AttackKind::Square => Self::Square(Square::default()),
            AttackKind::Fgsm => Self::Fgsm,
            AttackKind::Noise => Self::Noise(Noise::default()),
        }
    }

    /// Name of the attack without its settings.
    pub fn kind(&self) -> AttackKind {
        match self {
            Self::Pgd(_) => AttackKind::Pgd,
            Self::ApgdCe(_) => AttackKind::ApgdCe,
            Self::ApgdDlr(_) => AttackKind::ApgdDlr,
            Self::ApgdT(_) => AttackKind::ApgdT,
            Self::Fab(_) => AttackKind::Fab,
            Self::FabT(_) => AttackKind::FabT,
            Self::Square(_) => AttackKind::Square,
            Self::Fgsm => AttackKind::Fgsm,
            Self::Noise(_) => AttackKind::Noise,
        }
    }

    /// Attacks the images of `victim`.
    ///
    /// # Errors
    /// An error of `progress`; [`Error::Logits`](crate::Error::Logits) for logits that are not finite.
    pub fn run(&self, victim: &Victim, progress: Progress) -> Result<AttackResult> {
        match self {
            Self::Pgd(pgd) => pgd.run(victim, progress),
            Self::ApgdCe(apgd) => apgd.run(victim, ApgdLoss::CrossEntropy, progress),
            Self::ApgdDlr(apgd) => apgd.run(victim, ApgdLoss::Dlr, progress),
            Self::ApgdT(apgd) => apgd.run(victim, progress),
            Self::Fab(fab) | Self::FabT(fab) => fab.run(victim, progress),
            Self::Square(square) => square.run(victim, progress),
            Self::Fgsm => fgsm::run(victim, progress),
            Self::Noise(noise) => noise.run(victim, progress),
        }
    }

    /// Refuses settings that cannot be carried out: "queries: expected 1 or more, found 0".
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Pgd(pgd) => pgd.check(),
            Self::ApgdCe(apgd) | Self::ApgdDlr(apgd) => apgd.check(),
            Self::ApgdT(apgd) => apgd.check(),
            Self::Fab(fab) => fab.check(),
            Self::FabT(fab) => fab.check_targeted(),
            Self::Square(square) => square.check(),
            Self::Fgsm => Ok(()),
            Self::Noise(noise) => noise.check(),
        }
    }

    /// Reads an attack from its table: the `kind`, and the settings that differ from the published ones.
    fn from_table(mut table: Table) -> Result<Self, String> {
        let kind: AttackKind = match table.remove("kind") {
            Some(Value::String(kind)) => kind.parse()?,
            Some(other) => return Err(format!("kind: expected a name, found {other}")),
            None => return Err("expected a kind, such as kind = \"apgd-ce\"".to_owned()),
        };
        let published = Self::published(kind);
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
            settings.insert(key, value);
        }
        let attack: Self = settings
            .try_into()
            .map_err(|error: toml::de::Error| format!("{kind}: {}", error.message()))?;
        let checked = attack.check();
        checked.map_err(|problem| format!("{kind}: {problem}"))?;
        Ok(attack)
    }
}

/// List of attacks, each run on the images that the ones before it left.
///
/// ```
/// use advcl::attack::{AttackKind, Suite};
///
/// let suite = Suite::named("autoattack")?;
/// assert_eq!(suite.attacks()[0].kind(), AttackKind::ApgdCe);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Suite {
    /// None for a list.
    name: Option<String>,
    attacks: Vec<Attack>,
}

/// A suite as a recipe has it.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected the name of an attack, or a list of tables such as { kind = \"apgd-ce\" }"
)]
enum Written {
    Name(String),
    List(Vec<Table>),
}

impl TryFrom<Written> for Suite {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Name(name) => Self::named(&name),
            Written::List(tables) => {
                let attacks = tables.into_iter().map(Attack::from_table);
                Self::new(attacks.collect::<Result<_, _>>()?)
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
    /// Published composition of attacks, or a single attack with its published settings.
    ///
    /// "autoattack" (also "standard") is AutoAttack's standard version, "rand" its version for random classifiers.
    ///
    /// # Errors
    /// A line with the nearest known name.
    pub fn named(name: &str) -> Result<Self, String> {
        use AttackKind::{ApgdCe, ApgdT, FabT, Square};
        let random = Apgd {
            eot: EOT,
            ..Apgd::default()
        };
        let name = suite_name(name);
        let attacks = match name {
            AUTOATTACK => [ApgdCe, ApgdT, FabT, Square]
                .map(Attack::published)
                .to_vec(),
            "rand" => vec![Attack::ApgdCe(random.clone()), Attack::ApgdDlr(random)],
            single => {
                let kinds = AttackKind::ALL.into_iter();
                let mut same = kinds.filter(|kind| kind.name() == single);
                let kind = same.next().ok_or_else(|| {
                    let known = COMPOSITIONS.into_iter();
                    let known = known.chain(AttackKind::ALL.map(AttackKind::name));
                    format!("unknown attack {name:?}: {}", nearest(name, known))
                })?;
                vec![Attack::published(kind)]
            }
        };
        Ok(Self {
            attacks,
            name: Some(name.to_owned()),
        })
    }

    /// Suite of attacks by name, or of several, separated by commas and with their published settings: "apgd-ce,square".
    ///
    /// # Errors
    /// As [`Suite::named`].
    pub fn listed(names: &str) -> Result<Self, String> {
        if !names.contains(',') {
            return Self::named(names.trim());
        }
        let suites = names.split(',').map(|name| Self::named(name.trim()));
        let suites = suites.collect::<Result<Vec<_>, _>>()?;
        Self::new(suites.into_iter().flat_map(|suite| suite.attacks).collect())
    }

    /// Suite of these attacks, in this order.
    ///
    /// # Errors
    /// A line for no attacks, or for settings that cannot be carried out.
    pub fn new(attacks: Vec<Attack>) -> Result<Self, String> {
        if attacks.is_empty() {
            return Err("expected at least one attack".to_owned());
        }
        for attack in &attacks {
            let checked = attack.check();
            checked.map_err(|problem| format!("{}: {problem}", attack.kind()))?;
        }
        Ok(Self {
            name: None,
            attacks,
        })
    }

    /// Name in the recipe: "autoattack", "square"; "custom" for a list.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("custom")
    }

    /// Attacks in their order.
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
        for kind in AttackKind::ALL {
            let name = kind.name();
            let suite = Suite::named(name).expect(name);
            assert_eq!((suite.name(), suite.attacks()[0].kind()), (name, kind));
            let written = parse(&format!("[{{ kind = {name:?} }}]")).expect(name);
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
            let names = suite.attacks().iter().map(|attack| attack.kind().name());
            let names: Vec<&str> = names.collect();
            assert_eq!((suite.name(), &names[..]), (suite_name(name), expected));
        }
        // Results of one are found again by the other.
        assert_eq!(Suite::named("standard"), Suite::named("autoattack"));
        let suite = Suite::named("fab-t").expect("FAB");
        let Attack::FabT(fab) = &suite.attacks()[0] else {
            panic!("another attack");
        };
        assert_eq!((fab.targets, fab.restarts, fab.iterations), (9, 1, 100));
    }

    #[test]
    fn names_with_commas_are_a_list() {
        let kinds = |names: &str| -> Result<Vec<AttackKind>, String> {
            let suite = Suite::listed(names)?;
            Ok(suite.attacks().iter().map(Attack::kind).collect())
        };
        use AttackKind::{ApgdCe, ApgdDlr, Fgsm, Square};
        assert_eq!(kinds("fgsm, square"), Ok(vec![Fgsm, Square]));
        assert_eq!(kinds("fgsm,rand"), Ok(vec![Fgsm, ApgdCe, ApgdDlr]));
        assert_eq!(Suite::listed("rand"), Suite::named("rand"));
        for names in ["fgsm,", "fgsm,sqare"] {
            let error = kinds(names).expect_err(names);
            assert!(error.starts_with("unknown attack"), "{error}");
        }
    }

    #[test]
    fn a_list_changes_settings_and_is_written_as_it_is_read() {
        let text =
            "[{ kind = \"square\", queries = 300 }, { kind = \"apgd-t\", targets = 3, rho = 1 }]";
        let suite = parse(text).expect("a list");
        let Attack::ApgdT(apgd) = &suite.attacks()[1] else {
            panic!("another attack");
        };
        let expected = TargetedApgd {
            targets: 3,
            apgd: Apgd {
                rho: 1.0,
                ..Apgd::default()
            },
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
    fn what_is_no_attack_is_refused_with_the_reason() {
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
                "square: queries: expected 1 or more, found 0",
            ),
            (
                "[{ kind = \"apgd-ce\", rho = nan }]",
                "apgd-ce: rho: expected more than 0, found NaN",
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
            (
                "[{ kind = \"fab-t\", targets = 0 }]",
                "fab-t: targets: expected 1 or more, found 0",
            ),
            (
                "[{ kind = \"apgd-t\", targets = 0 }]",
                "apgd-t: targets: expected 1 or more, found 0",
            ),
            (
                "[{ kind = \"pgd\", step = 0.0 }]",
                "pgd: step: expected more than 0, found 0",
            ),
            (
                "[{ kind = \"noise\", samples = 0 }]",
                "noise: samples: expected 1 or more, found 0",
            ),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
