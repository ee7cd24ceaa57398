//! TOML as a tree with the position of each key and value, for error messages.
//!
//! In: text. Out: [`Node`]. It does not depend on jobs.

use super::{Place, Problem};
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    pub place: Place,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// No key of a job accepts one; kept for the error message.
    Datetime(String),
    Array(Vec<Node>),
    Table(BTreeMap<String, Entry>),
}

/// A key's place and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: Place,
    pub node: Node,
}

/// Parses a job file. Places are lines and columns of `text`.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let place = |offset| Place::of_offset(text, offset);
    let table = DeTable::parse(text).map_err(|error| syntax(&error, &place))?;
    Ok(Node {
        value: table_of(table.into_inner(), &place)?,
        place: Place::START,
    })
}

/// Parses the value of an override, which is its own place. `None` when it is no TOML value.
pub(super) fn parse_value(text: &str, place: &Place) -> Option<Node> {
    node_of(DeValue::parse(text).ok()?, &|_| place.clone()).ok()
}

fn syntax(error: &toml::de::Error, place: &dyn Fn(usize) -> Place) -> Problem {
    let at = error.span().map_or(Place::START, |span| place(span.start));
    Problem::new(at, format!("not TOML: {}", error.message()))
}

fn node_of(spanned: Spanned<DeValue<'_>>, place: &dyn Fn(usize) -> Place) -> Result<Node, Problem> {
    let at = place(spanned.span().start);
    let too_large = |text: &dyn std::fmt::Display| {
        Problem::new(
            at.clone(),
            format!("the number {text} does not fit 64 bits; write a smaller one"),
        )
    };
    let value = match spanned.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(number) => Value::Integer(
            i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| too_large(&number))?,
        ),
        DeValue::Float(number) => Value::Float(number.as_str().parse().map_err(|_| too_large(&number))?),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(value) => Value::Datetime(value.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|item| node_of(item, place))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => table_of(table, place)?,
    };
    Ok(Node { value, place: at })
}

fn table_of(table: DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Result<Value, Problem> {
    let entry = |(key, value): (Spanned<_>, _)| {
        let at = place(key.span().start);
        let name = std::borrow::Cow::into_owned(key.into_inner());
        Ok((
            name,
            Entry {
                key: at,
                node: node_of(value, place)?,
            },
        ))
    };
    table
        .into_iter()
        .map(entry)
        .collect::<Result<_, _>>()
        .map(Value::Table)
}

impl Node {
    /// The table inside, if it is one.
    pub fn table(&self) -> Option<&BTreeMap<String, Entry>> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The place of the value at a path such as `["models", "0", "name"]`, or of its nearest ancestor that exists.
    pub fn place_of(&self, path: &[&str]) -> Place {
        let mut node = self;
        for step in path {
            let next = match &node.value {
                Value::Table(table) => table.get(*step).map(|entry| &entry.node),
                Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place.clone()
    }

    /// What it is, for messages: "the integer 5".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::String(text) => format!("the text {text:?}"),
            Value::Integer(number) => format!("the whole number {number}"),
            Value::Float(number) => format!("the number {number:?}"),
            Value::Boolean(value) => format!("the boolean {value}"),
            Value::Datetime(text) => format!("the date or time {text}"),
            Value::Array(_) => "a list".into(),
            Value::Table(_) => "a section".into(),
        }
    }

    /// The same tree as JSON. Non-finite floats become null; `check` rejects them earlier.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::String(text) | Value::Datetime(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Boolean(value) => (*value).into(),
            Value::Array(items) => items.iter().map(Node::to_json).collect(),
            Value::Table(table) => table
                .iter()
                .map(|(key, entry)| (key.clone(), entry.node.to_json()))
                .collect(),
        }
    }
}
