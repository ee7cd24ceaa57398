//! `--set key=value`: changes the tree of a job before it is checked, so that overrides get the same checks.

use super::error::{did_you_mean, listed, nearest};
use super::tree::{Entry, Node, Value, parse_value};
use super::{Place, Problem};
use std::collections::BTreeMap;

/// Applies the overrides in order; a later one wins.
pub(super) fn apply(root: &mut Node, overrides: &[String]) -> Result<(), Vec<Problem>> {
    let apply_one = |text: &String| set(root, text).err();
    let problems: Vec<Problem> = overrides.iter().filter_map(apply_one).collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

fn set(root: &mut Node, text: &str) -> Result<(), Problem> {
    let place = Place::Override(text.into());
    let refuse = |message: String| Problem::new(place.clone(), message);
    let (path, value) = text
        .split_once('=')
        .ok_or_else(|| refuse("has no `=`; write it as key=value, such as run.workers=2".into()))?;
    let steps: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    if steps.contains(&"") {
        return Err(refuse(
            "has an empty key; write it as key=value, such as run.workers=2".into(),
        ));
    }
    let value = parse_value(value.trim(), &place).unwrap_or_else(|| Node {
        value: Value::String(value.into()),
        place: place.clone(),
    });

    let mut node = root;
    for (depth, step) in steps.iter().enumerate() {
        let parent = steps[..depth].join(".");
        let found = node.describe();
        node = match &mut node.value {
            Value::Table(table) => {
                let missing = || Node {
                    value: Value::Table(BTreeMap::new()),
                    place: place.clone(),
                };
                let entry = || Entry {
                    key: place.clone(),
                    node: missing(),
                };
                &mut table.entry((*step).into()).or_insert_with(entry).node
            }
            Value::Array(items) => {
                let names: Vec<String> = items.iter().enumerate().map(name_of).collect();
                let index = names
                    .iter()
                    .position(|name| name == step)
                    .or_else(|| step.parse().ok());
                let Some(item) = index.and_then(|index| items.get_mut(index)) else {
                    let hint = did_you_mean(nearest(step, names.iter().map(String::as_str)));
                    let valid = if names.is_empty() {
                        "none".into()
                    } else {
                        listed(&names)
                    };
                    return Err(refuse(format!(
                        "`{parent}` has no entry `{step}`{hint} (entries: {valid})"
                    )));
                };
                item
            }
            _ => return Err(refuse(format!("`{parent}` is {found}, which has no keys"))),
        };
    }
    *node = value;
    Ok(())
}

/// An entry's `name`, or its number from 0.
fn name_of((index, item): (usize, &Node)) -> String {
    match item
        .table()
        .and_then(|table| table.get("name"))
        .map(|entry| &entry.node.value)
    {
        Some(Value::String(name)) => name.clone(),
        _ => index.to_string(),
    }
}
