//! From the text of a lab file to that of a misconfigured one. Comments and order of what is not changed stay.

use super::{Mutation, refused};
use crate::error::Result;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

impl Mutation {
    /// The lab file with this misconfiguration in it, and its mark.
    ///
    /// # Errors
    /// [`crate::error::Error::Usage`]: the text is no TOML, what is to go is not there, or nothing is changed.
    pub fn patch(&self, text: &str) -> Result<String> {
        let bad = |seen: String| refused(&self.id, seen);
        let mut file: DocumentMut = text.parse().map_err(|e| bad(format!("the lab file is no TOML: {e}")))?;
        let before = file.to_string();
        for path in &self.remove {
            remove(file.as_table_mut(), path).map_err(bad)?;
        }
        let lab: DocumentMut = self
            .lab
            .to_string()
            .parse()
            .map_err(|e| bad(format!("what it changes is no TOML: {e}")))?;
        merge(file.as_table_mut(), lab.as_table()).map_err(bad)?;
        if file.to_string() == before {
            return Err(bad("it changes nothing: the lab is like that already".into()));
        }
        append(
            file.as_table_mut(),
            "on-purpose",
            self.rules.iter().map(|r| r.as_str().into()),
        )
        .map_err(bad)?;
        let mut mark = InlineTable::new();
        mark.insert("id", self.id.as_str().into());
        mark.insert("title", self.title.as_str().into());
        if !self.healthy {
            mark.insert("healthy", false.into());
        }
        append(file.as_table_mut(), "mutations", [mark.into()]).map_err(bad)?;
        Ok(file.to_string())
    }
}

/// Takes out what is at a dotted path.
fn remove(table: &mut dyn TableLike, path: &str) -> Result<(), String> {
    let gone = || format!("it takes out `{path}`, which is not there");
    let (mut table, mut rest) = (table, path);
    while let Some((first, behind)) = rest.split_once('.') {
        table = table
            .get_mut(first)
            .and_then(Item::as_table_like_mut)
            .ok_or_else(gone)?;
        rest = behind;
    }
    table.remove(rest).map(drop).ok_or_else(gone)
}

/// Brings `from` into `into`.
fn merge(into: &mut dyn TableLike, from: &dyn TableLike) -> Result<(), String> {
    for (key, item) in from.iter() {
        if let Some(list) = item.as_array() {
            append(into, key, list.iter().cloned())?;
        } else if let Some(table) = item.as_table_like() {
            let there = into.entry(key).or_insert_with(|| Item::Table(Table::new()));
            let there = there
                .as_table_like_mut()
                .ok_or_else(|| format!("`{key}` is no table in the lab file"))?;
            merge(there, table)?;
        } else {
            into.insert(key, item.clone());
        }
    }
    Ok(())
}

/// Appends to a list those that it does not have; makes it where it is not there.
fn append(into: &mut dyn TableLike, key: &str, values: impl IntoIterator<Item = Value>) -> Result<(), String> {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let there = into
        .entry(key)
        .or_insert_with(|| Item::Value(Value::Array(Array::new())));
    let list = there
        .as_array_mut()
        .ok_or_else(|| format!("`{key}` is no list in the lab file"))?;
    let plain = |v: &Value| v.clone().decorated("", "").to_string();
    for value in values {
        if !list.iter().any(|v| plain(v) == plain(&value)) {
            list.push(value);
        }
    }
    Ok(())
}
