//! Overrides written into a recipe's text, so that its comments and its order stay.

use advcl::recipe::as_toml;
use toml_edit::{DocumentMut, InlineTable, Item, RawString, Table, TableLike, TomlError, Value};

/// Returns `text` with `KEY = VALUE` lines applied in order, as [`Recipe::load`](advcl::recipe::Recipe::load)
/// applies them: a value in braces replaces a whole table, any other value one key.
///
/// # Errors
/// [`TomlError`] for what is no TOML.
pub fn edited(text: &str, overrides: &[String]) -> Result<String, TomlError> {
    let mut document: DocumentMut = text.parse()?;
    for line in overrides {
        let change: DocumentMut = as_toml(line).parse()?;
        merge(document.as_table_mut(), true, change.as_table());
    }
    Ok(document.to_string())
}

/// Puts `change` over `target`. New tables get a heading where `headings` says that `target` holds tables
/// with headings, and braces elsewhere.
fn merge(target: &mut dyn TableLike, headings: bool, change: &dyn TableLike) {
    for (key, item) in change.iter() {
        let inner = match item {
            Item::Table(inner) => inner,
            Item::Value(value) => {
                set(target, headings, key, value);
                continue;
            }
            _ => continue,
        };
        if !target.get(key).is_some_and(Item::is_table_like) {
            let empty = if headings {
                let mut table = Table::new();
                table.set_implicit(true);
                Item::Table(table)
            } else {
                Item::Value(InlineTable::new().into())
            };
            target.insert(key, empty);
        }
        let Some(below) = target.get_mut(key) else {
            continue;
        };
        // A table without a line of its own, as `pretrain` above `[pretrain.simclr]`.
        let headings = below.as_table().is_some_and(Table::is_implicit);
        if let Some(below) = below.as_table_like_mut() {
            merge(below, headings, inner);
        }
        if let Item::Table(table) = below
            && table.iter().any(|(_, item)| item.is_value())
        {
            table.set_implicit(false);
        }
    }
}

/// Sets one key to a value that is written in the place of the old one.
fn set(target: &mut dyn TableLike, headings: bool, key: &str, value: &Value) {
    let mut value = value.clone();
    value.decor_mut().clear();
    match (target.get_mut(key), value) {
        (Some(Item::Table(old)), Value::InlineTable(new)) => {
            let mut new = new.into_table();
            *new.decor_mut() = old.decor().clone();
            new.set_position(old.position());
            *old = new;
        }
        (Some(Item::Value(old)), mut value) if !is_dotted(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        (None, Value::InlineTable(new)) if headings => {
            target.insert(key, Item::Table(new.into_table()));
        }
        (_, value) => {
            trim_end(target);
            target.insert(key, Item::Value(value));
        }
    }
}

/// Takes away the space after a table's last value, which stood before a closing brace.
fn trim_end(table: &mut dyn TableLike) {
    match table.iter_mut().last() {
        Some((_, Item::Value(Value::InlineTable(last)))) if last.is_dotted() => trim_end(last),
        Some((_, Item::Value(last)))
            if last.decor().suffix().and_then(RawString::as_str) == Some(" ") =>
        {
            last.decor_mut().set_suffix("");
        }
        _ => {}
    }
}

/// Whether a table is written as `cosine` in `schedule.cosine = {}`.
fn is_dotted(value: &Value) -> bool {
    value.as_inline_table().is_some_and(InlineTable::is_dotted)
}
