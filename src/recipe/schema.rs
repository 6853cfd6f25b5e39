//! JSON Schemas of the recipe's types whose reading is written by hand; the others derive theirs.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::attack::{Attack, Suite};
use crate::data::Size;
use crate::finetune::{self, Finetune, MODES};
use crate::pixels::Pixels;
use crate::pretrain::{self, METHODS, Pretrain};

impl JsonSchema for Pixels {
    fn schema_name() -> Cow<'static, str> {
        "Pixels".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "distance in pixels", "type": ["number", "string"] })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "pixels, or height and width", "type": ["integer", "array"] })
    }
}

/// Schema of a table that holds one table for each name.
fn tables(named: impl IntoIterator<Item = (&'static str, &'static str, Schema)>) -> Schema {
    let described = |(name, about, mut schema): (&str, &str, Schema)| {
        schema.insert("description".to_owned(), about.into());
        (name.to_owned(), schema.to_value())
    };
    let properties: Map<_, _> = named.into_iter().map(described).collect();
    json_schema!({ "type": "object", "properties": properties })
}

impl JsonSchema for Pretrain {
    fn schema_name() -> Cow<'static, str> {
        "Pretrain".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // One alternative for each method, in the registry's order: both are made from the same lines.
        let settings = pretrain::MethodSettings::json_schema(generator);
        let alternatives = settings.get("anyOf").and_then(Value::as_array);
        let schemas = alternatives.into_iter().flatten().cloned();
        let shared = pretrain::CommonSettings::json_schema(generator);
        let shared = shared.get("properties").and_then(Value::as_object);
        let with_shared = |mut schema: Value| -> Schema {
            let own = schema["properties"].as_object_mut().expect("a table");
            own.extend(
                shared
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| (key.clone(), value.clone())),
            );
            schema.try_into().expect("an object")
        };
        let named = METHODS.iter().zip(schemas.map(with_shared));
        tables(named.map(|(method, schema)| (method.name, method.about, schema)))
    }
}

impl JsonSchema for Finetune {
    fn schema_name() -> Cow<'static, str> {
        "Finetune".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let named = MODES.iter().map(|mode| {
            let mut schema = finetune::FinetuneSettings::json_schema(generator);
            for (key, value) in defaults_of_mode(mode.name) {
                schema.as_object_mut().expect("an object")["properties"][key]["default"] = value;
            }
            (mode.name, mode.about, schema)
        });
        tables(named.collect::<Vec<_>>())
    }
}

/// Values of the keys that a mode decides where its table leaves them out.
fn defaults_of_mode(name: &str) -> [(&'static str, Value); 4] {
    let plan = json!({
        "epochs": 1, "batch_size": 1, "lr": 0.0, "momentum": 0.0, "weight_decay": 0.0,
        "schedule": { "cosine": {} },
    });
    let modes: Finetune =
        serde_json::from_value(json!({ name: { "plan": plan } })).expect("a mode of the registry");
    let mode = &modes.entries()[0];
    [
        ("trains", json!(mode.trains())),
        ("loss", json!(mode.loss())),
        ("labels", json!(mode.labels())),
        ("soft_labels", json!(mode.soft_labels())),
    ]
}

impl JsonSchema for Suite {
    fn schema_name() -> Cow<'static, str> {
        "Suite".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let attacks = Attack::json_schema(generator);
        let kinds = attacks.get("oneOf").and_then(Value::as_array);
        let kinds: Vec<Value> = kinds
            .into_iter()
            .flatten()
            .cloned()
            .map(published)
            .collect();
        json_schema!({
            "title": "name of a suite or attack, or list of tables",
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "oneOf": kinds }, "minItems": 1 },
            ],
        })
    }
}

/// Schema of an attack's table, in which every key but the kind has its published value as default.
fn published(mut schema: Value) -> Value {
    let kind = schema["properties"]["kind"]["const"]
        .as_str()
        .unwrap_or_default();
    let suite = Suite::named(kind).expect("every attack has published settings");
    let published = json!(suite.attacks()[0]);
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.retain(|key, _| published.get(key).is_some());
        for (key, property) in properties.iter_mut().filter(|(key, _)| *key != "kind") {
            property["default"] = published[key].clone();
        }
    }
    schema["required"] = json!(["kind"]);
    schema
}
