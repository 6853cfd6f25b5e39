//! Every key that a recipe can have, with its type, default and documentation, read from the types.

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Recipe;
use crate::error::{Error, Result, nearest};

/// A key of a recipe: a value, or a table with keys of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Key {
    /// Name in full: `pretrain.simclr.plan.epochs`. Keys of an attack in a list are written
    /// `evaluate.attack[square].queries`.
    pub key: String,
    /// Type in words: "whole number", "table".
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether the table that it stands in cannot do without it.
    pub required: bool,
    /// Value where the key is left out; none where it is required, or where nothing takes its place.
    pub default: Option<Value>,
    /// First sentence of its documentation.
    pub about: String,
}

impl Key {
    /// Default as TOML.
    pub fn default_text(&self) -> Option<String> {
        let value = toml::Value::try_from(self.default.as_ref()?);
        Some(value.expect("a default is no null").to_string())
    }

    /// Whether it is the key `prefix` or stands below it.
    fn is_below(&self, prefix: &str) -> bool {
        let rest = self.key.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

/// Returns every key of a recipe, each table before the keys in it.
///
/// ```
/// let keys = advcl::recipe::keys::all();
/// let steps = keys.iter().find(|key| key.key == "evaluate.steps").unwrap();
/// assert_eq!((steps.kind.as_str(), steps.required), ("whole number", true));
/// ```
pub fn all() -> Vec<Key> {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Recipe>();
    let mut keys = Vec::new();
    list_properties("", schema.as_value(), &mut keys);
    keys
}

/// Returns the key `prefix` and every key below it.
///
/// # Errors
/// [`Error::Recipe`] for a key that no recipe can have.
pub fn below(prefix: &str) -> Result<Vec<Key>> {
    let all = all();
    let found: Vec<Key> = all
        .iter()
        .filter(|key| key.is_below(prefix))
        .cloned()
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    Err(Error::recipe(
        prefix,
        "no recipe has this key",
        hint(prefix, &all),
    ))
}

/// Names the keys that may be meant by one that there is not.
fn hint(unknown: &str, all: &[Key]) -> String {
    // A key's last part alone.
    let last = format!(".{unknown}");
    let ending = all.iter().filter(|key| key.key.ends_with(&last));
    if let Some(key) = ending.min_by_key(|key| key.key.matches('.').count()) {
        return format!("did you mean {:?}?", key.key);
    }
    // The deepest table that the name begins with, and the names in it.
    let mut table = unknown;
    while !table.is_empty() && !all.iter().any(|key| key.key == table) {
        table = table.rsplit_once('.').map_or("", |(table, _)| table);
    }
    let inside = all.iter().filter_map(|key| match key.key.rsplit_once('.') {
        Some((parent, name)) => (parent == table).then_some(name),
        None => table.is_empty().then_some(key.key.as_str()),
    });
    nearest(unknown[table.len()..].trim_start_matches('.'), inside)
}

/// Adds the key `name` and everything below it.
fn list(name: &str, schema: &Value, required: bool, keys: &mut Vec<Key>) {
    let present = without_null(schema);
    let about = [schema, present].map(|schema| schema["description"].as_str());
    let default = schema.get("default").map(shortened);
    keys.push(Key {
        key: name.to_owned(),
        kind: kind(present),
        required,
        // A table's default says nothing where it is made of its keys' defaults.
        default: default.filter(|default| *default != defaults(present)),
        about: first_sentence(about.into_iter().flatten().next().unwrap_or_default()),
    });
    list_properties(name, present, keys);
    for alternative in alternatives(present) {
        if let Some((variant, _)) = variant(alternative) {
            let mut inner = alternative["properties"][variant].clone();
            inner["description"] = alternative["description"].clone();
            list(&format!("{name}.{variant}"), &inner, false, keys);
        }
        for table in alternatives(&alternative["items"]) {
            list_element(name, table, keys);
        }
    }
}

/// Adds what a table has.
fn list_properties(name: &str, schema: &Value, keys: &mut Vec<Key>) {
    let required: Vec<&str> = texts(&schema["required"]).collect();
    for (key, property) in properties(schema) {
        let dot = if name.is_empty() { "" } else { "." };
        let required = required.contains(&key.as_str());
        list(&format!("{name}{dot}{key}"), property, required, keys);
    }
}

/// Adds a table of a list, which its `kind` tells from others.
fn list_element(name: &str, schema: &Value, keys: &mut Vec<Key>) {
    let mut inner = schema.clone();
    let fields = inner["properties"].as_object_mut();
    let Some(tag) = fields.and_then(|fields| fields.shift_remove("kind")) else {
        return;
    };
    let kind = tag["const"].as_str().unwrap_or_default();
    list(&format!("{name}[{kind}]"), &inner, false, keys);
}

/// The schema of a value that is there, of one that may be left out.
fn without_null(schema: &Value) -> &Value {
    match schema["anyOf"].as_array().map(Vec::as_slice) {
        Some([present, null]) if null["type"] == "null" => present,
        _ => schema,
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["oneOf", "anyOf"].map(|name| schema[name].as_array());
    lists.into_iter().flatten().flatten()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Name and schema of the one table that an enum's alternative has.
fn variant(alternative: &Value) -> Option<(&str, &Value)> {
    let mut fields = properties(alternative);
    let (name, inner) = fields.next()?;
    (fields.next().is_none() && inner["type"] == "object").then_some((name.as_str(), inner))
}

/// Defaults of a table's keys, as the table that they make.
fn defaults(schema: &Value) -> Value {
    let named = properties(schema)
        .filter_map(|(key, property)| Some((key.clone(), shortened(property.get("default")?))));
    Value::Object(named.collect::<Map<_, _>>())
}

/// Numbers as short as they can be written: what a 32-bit number was read from, not all the digits of its value.
fn shortened(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let wide = number.as_f64().unwrap_or_default();
            let narrow = wide as f32;
            let same = f64::from(narrow) == wide;
            let short = narrow.to_string().parse().ok().filter(|_| same);
            Value::from(short.unwrap_or(wide))
        }
        Value::Array(values) => values.iter().map(shortened).collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| (key.clone(), shortened(value)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

/// Type in words.
fn kind(schema: &Value) -> String {
    if let Some(title) = schema["title"].as_str() {
        return title.to_owned();
    }
    let choices = alternatives(schema).map(|alternative| match variant(alternative) {
        Some((name, _)) => format!("{{ {name} = … }}"),
        None => alternative["const"].to_string(),
    });
    let values = schema["enum"].as_array().into_iter().flatten();
    let values = values
        .filter(|value| !value.is_null())
        .map(Value::to_string);
    let choices: Vec<String> = choices.chain(values).collect();
    if let Some((last, others)) = choices.split_last() {
        return match others {
            [] => last.clone(),
            others => format!("{} or {last}", others.join(", ")),
        };
    }
    let types = texts(&schema["type"]).chain(schema["type"].as_str());
    match types.into_iter().next() {
        Some("integer") => "whole number".to_owned(),
        Some("number") => "number".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("string") => "text".to_owned(),
        Some("object") => "table".to_owned(),
        Some("array") => match schema["prefixItems"].as_array() {
            Some(items) => format!("list of {} {}s", items.len(), kind(&items[0])),
            None => format!("list of {}s", kind(&schema["items"])),
        },
        other => other.unwrap_or("value").to_owned(),
    }
}

/// First sentence of a doc comment, on one line.
fn first_sentence(doc: &str) -> String {
    let paragraph: Vec<&str> = doc
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .collect();
    let paragraph = paragraph.join(" ");
    let ends = paragraph.match_indices(". ").map(|(at, _)| at);
    // "Eq. 3", "et al. show": a sentence begins with a capital letter.
    let is_end = |at: &usize| paragraph[at + 2..].starts_with(char::is_uppercase);
    let end = ends.into_iter().find(is_end);
    end.map_or(paragraph.as_str(), |at| &paragraph[..=at])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value as Toml};

    use super::*;
    use crate::attack::Suite;
    use crate::recipe::depends::tests::full;

    /// The table that the last name of `key` stands in, and that name; none where a table before it is not there.
    fn parent<'a, 'b>(table: &'a mut Table, key: &'b str) -> Option<(&'a mut Table, &'b str)> {
        let mut names: Vec<&str> = key.split('.').collect();
        let last = names.pop()?;
        let inside = |table: &'a mut Table, name: &&str| table.get_mut(*name)?.as_table_mut();
        let table = names.iter().try_fold(table, inside)?;
        Some((table, last))
    }

    /// Dotted names of a table's values and of the tables in it.
    fn names(table: &Table) -> Vec<String> {
        let below = |(key, value): (&String, &Toml)| {
            let inner = value.as_table().map(names).unwrap_or_default();
            let inner = inner.into_iter().map(|name| format!("{key}.{name}"));
            std::iter::once(key.clone())
                .chain(inner)
                .collect::<Vec<_>>()
        };
        table.iter().flat_map(below).collect()
    }

    #[test]
    fn every_key_of_a_full_recipe_is_listed() {
        let table = Table::try_from(full()).expect("plain values");
        let listed = all();
        let names = names(&table);
        assert!(names.len() > 150, "{names:?}");
        for name in names {
            assert!(listed.iter().any(|key| key.key == name), "{name}");
        }
        for key in &listed {
            assert!(!key.about.is_empty(), "{} has no documentation", key.key);
            assert!(!key.kind.contains("null"), "{key:?}");
        }
    }

    #[test]
    fn a_key_is_required_or_has_its_default_as_the_recipe_reads_it() {
        let whole = Table::try_from(full()).expect("plain values");
        let read = |table: &Table| -> Result<Recipe, toml::de::Error> {
            Toml::Table(table.clone()).try_into()
        };
        // A mode decides these where its table leaves them out; the recipe keeps that they were left out.
        let by_mode = ["trains", "loss", "labels", "soft_labels"];
        let (mut required, mut defaults) = (0, 0);
        for key in all() {
            let (mut without, mut with) = (whole.clone(), whole.clone());
            let Some((table, name)) = parent(&mut without, &key.key) else {
                continue;
            };
            let alternative = table.len() == 1 && !key.required && key.kind == "table";
            if table.remove(name).is_none() || alternative {
                continue;
            }
            let without = read(&without);
            assert_eq!(without.is_err(), key.required, "{}", key.key);
            required += usize::from(key.required);
            if let Some(default) = &key.default
                && !(key.key.starts_with("finetune.") && by_mode.contains(&name))
            {
                let default = Toml::try_from(default).expect("a default is no null");
                let (table, name) = parent(&mut with, &key.key).expect("as before");
                table.insert(name.to_owned(), default);
                assert_eq!(without.ok(), read(&with).ok(), "{}", key.key);
                defaults += 1;
            }
        }
        assert!(required > 100 && defaults > 50, "{required}, {defaults}");
    }

    #[test]
    fn settings_of_attacks_have_their_published_values() {
        #[derive(serde::Deserialize)]
        struct Attacks {
            attack: Suite,
        }
        let read = |settings: &str| -> Vec<crate::attack::Attack> {
            let text = format!("attack = [{{ {settings} }}]");
            let read: Attacks = toml::from_str(&text).expect(&text);
            read.attack.attacks().to_vec()
        };
        let keys = below("evaluate.attack").expect("it is there");
        let mut settings = 0;
        for key in &keys {
            let Some((kind, rest)) = key
                .key
                .split_once('[')
                .and_then(|(_, rest)| rest.split_once(']'))
            else {
                continue;
            };
            let Some(name) = rest.strip_prefix('.') else {
                continue;
            };
            let default = key.default_text().expect("each has one");
            let kind = format!("kind = {kind:?}");
            assert_eq!(
                read(&kind),
                read(&format!("{kind}, {name} = {default}")),
                "{}",
                key.key
            );
            settings += 1;
        }
        assert!(settings > 20, "{keys:?}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        for (unknown, expected) in [
            ("evaluat", "did you mean \"evaluate\"?"),
            ("evaluate.stps", "did you mean \"steps\"?"),
            ("step_size", "did you mean \"evaluate.step_size\"?"),
            ("evaluate.xyz", "known: split, batch_size, "),
            ("zzz", "known: seed, precision, shards, batchnorm, data, "),
            ("", "known: seed, precision, shards, batchnorm, data, "),
        ] {
            let error = below(unknown).expect_err(unknown);
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(expected), "{unknown}: {hint}");
        }
        assert!(below("evaluate.step").is_err(), "no part of a name");
        assert_eq!(below("pretrain.simclr.plan.lr").expect("a key").len(), 1);
    }
}
