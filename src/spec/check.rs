//! Validates a TOML tree against the JSON Schema of the job: unknown and missing keys, types, ranges, choices.
//!
//! It supports the part of JSON Schema that is derived from [`super::Job`], so the published schema and the program cannot
//! disagree. It collects all problems.

use super::error::{did_you_mean, listed, nearest};
use super::tree::{Node, Value};
use super::{Place, Problem};
use serde_json::Value as Json;

/// Checks the whole tree; the error is never empty.
pub(super) fn check(root: &Node, schema: &Json) -> Result<(), Vec<Problem>> {
    let mut checker = Checker {
        root: schema,
        problems: Vec::new(),
    };
    checker.node(root, schema, &[]);
    if checker.problems.is_empty() {
        Ok(())
    } else {
        Err(checker.problems)
    }
}

struct Checker<'a> {
    root: &'a Json,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    fn refuse(&mut self, place: &Place, message: String) {
        self.problems.push(Problem::new(place.clone(), message));
    }

    /// Follows `$ref`, which schemars writes as `#/$defs/Name`.
    fn resolved(&self, schema: &'a Json) -> &'a Json {
        let target = schema["$ref"]
            .as_str()
            .and_then(|reference| reference.strip_prefix('#'));
        target
            .and_then(|pointer| self.root.pointer(pointer))
            .unwrap_or(schema)
    }

    fn node(&mut self, node: &Node, schema: &'a Json, path: &[String]) {
        let schema = self.resolved(schema);
        let wanted = wanted(schema);
        let matches = match &node.value {
            Value::Table(_) => wanted == "object",
            Value::Array(_) => wanted == "array",
            Value::String(_) => wanted == "string",
            Value::Integer(_) => wanted == "integer" || wanted == "number",
            Value::Float(_) => wanted == "number",
            Value::Boolean(_) => wanted == "boolean",
            Value::Datetime(_) => false,
        };
        if !matches {
            let message = format!("`{}` {}", path.join("."), wrong_type(node, schema, wanted, path));
            return self.refuse(&node.place, message);
        }
        match &node.value {
            Value::Table(_) => self.table(node, schema, path),
            Value::Array(items) => self.array(node, items, schema, path),
            Value::String(text) => self.choice(node, text, schema, path),
            Value::Integer(number) => self.range(node, *number as f64, schema, path),
            Value::Float(number) => self.range(node, *number, schema, path),
            Value::Boolean(_) | Value::Datetime(_) => {}
        }
    }

    fn table(&mut self, node: &Node, schema: &'a Json, path: &[String]) {
        let (Some(table), Some(properties)) = (node.table(), schema["properties"].as_object()) else {
            return;
        };
        let section = section(path);
        let mut misspelt = Vec::new();
        for (key, entry) in table {
            if let Some(property) = properties.get(key) {
                self.node(&entry.node, property, &[path, std::slice::from_ref(key)].concat());
            } else {
                let meant = nearest(key, properties.keys().map(String::as_str));
                misspelt.extend(meant);
                let hint = did_you_mean(meant);
                let valid = listed(properties.keys());
                let message = format!("unknown key `{key}` in {section}{hint} (valid keys: {valid})");
                self.refuse(&entry.key, message);
            }
        }
        let required = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str);
        // A misspelt key is one problem; do not also report the right one as missing.
        for key in required.filter(|key| !table.contains_key(*key) && !misspelt.contains(key)) {
            let what = match properties
                .get(key)
                .map(|property| wanted(self.resolved(property)))
            {
                Some("object") => format!("the section [{key}] is missing; add it"),
                Some("array") => format!("there is no [[{key}]] entry; add one"),
                _ => format!("`{key}` is missing in {section}; add it"),
            };
            self.refuse(&node.place, what);
        }
    }

    fn array(&mut self, node: &Node, items: &[Node], schema: &'a Json, path: &[String]) {
        if (items.len() as u64) < schema["minItems"].as_u64().unwrap_or(0) {
            self.refuse(
                &node.place,
                format!("`{}` is empty; add an entry", path.join(".")),
            );
        }
        for (index, item) in items.iter().enumerate() {
            self.node(item, &schema["items"], &[path, &[index.to_string()]].concat());
        }
    }

    fn choice(&mut self, node: &Node, text: &str, schema: &Json, path: &[String]) {
        let choices = choices(schema);
        if !choices.is_empty() && !choices.contains(&text) {
            let hint = did_you_mean(nearest(text, choices.iter().copied()));
            let valid = listed(&choices);
            let message = format!("`{}` cannot be {text:?}{hint} (valid: {valid})", path.join("."));
            self.refuse(&node.place, message);
        }
    }

    fn range(&mut self, node: &Node, number: f64, schema: &Json, path: &[String]) {
        let bound = |name: &str| schema[name].as_f64();
        let broken = if !number.is_finite() {
            Some("must be a finite number".to_string())
        } else if let Some(min) = bound("minimum").filter(|min| number < *min) {
            Some(format!("must be at least {min}"))
        } else if let Some(min) = bound("exclusiveMinimum").filter(|min| number <= *min) {
            Some(format!("must be above {min}"))
        } else {
            bound("maximum")
                .filter(|max| number > *max)
                .map(|max| format!("must be at most {max}"))
        };
        if let Some(rule) = broken {
            self.refuse(
                &node.place,
                format!("`{}` {rule}, found {}", path.join("."), node.describe()),
            );
        }
    }
}

/// The type that a schema requires; an additional `null` means that the key is optional.
fn wanted(schema: &Json) -> &str {
    let one_of = schema["oneOf"]
        .as_array()
        .and_then(|choices| choices.first())
        .map(|choice| &choice["type"]);
    let types = one_of.unwrap_or(&schema["type"]);
    let list = types.as_array().into_iter().flatten();
    let named = list.filter_map(Json::as_str).find(|name| *name != "null");
    types.as_str().or(named).unwrap_or("anything")
}

/// The choices of a schema, as `enum` or as `oneOf` with descriptions.
fn choices(schema: &Json) -> Vec<&str> {
    let plain = schema["enum"].as_array().into_iter().flatten();
    let explained = schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|choice| {
            let listed = choice["enum"].as_array().into_iter().flatten();
            listed.chain(choice.get("const"))
        });
    plain.chain(explained).filter_map(Json::as_str).collect()
}

/// How a section is written: `[run]`, `[[models]]`, or "the job file".
fn section(path: &[String]) -> String {
    match path {
        [] => "the job file".into(),
        [list, index] if index.parse::<usize>().is_ok() => format!("[[{list}]]"),
        path => format!("[{}]", path.join(".")),
    }
}

fn wrong_type(node: &Node, schema: &Json, wanted: &str, path: &[String]) -> String {
    let what = match wanted {
        "object" => format!("must be a section, written {}", section(path)),
        "array" if schema["items"]["type"] == "string" => {
            "must be a list of texts such as [\"a\", \"b\"]".into()
        }
        "array" => format!("must be a list of sections, each written [[{}]]", path.join(".")),
        "string" => "must be text".into(),
        "integer" => "must be a whole number".into(),
        "number" => "must be a number".into(),
        "boolean" => "must be true or false".into(),
        other => format!("must be {other}"),
    };
    let remedy = match &node.value {
        Value::String(text) if matches!(wanted, "integer" | "number") && text.parse::<f64>().is_ok() => {
            "; leave the quotes out"
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_)
            if wanted == "string" =>
        {
            "; put it in quotes"
        }
        _ => "",
    };
    format!("{what}, found {}{remedy}", node.describe())
}
