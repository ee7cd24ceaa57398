//! What lies in `schemas/`: the JSON Schemas of every persisted JSON format, and the page about them, generated from the types that
//! write them.

use super::{
    CalibrationRecord, CheckpointRecord, CommitRecord, DeviceRecord, InputRecord, JobRecord, Manifest, Plan,
    StrikesRecord,
};
use crate::reference::reference;
use affectmill_spec as spec;
use schemars::{JsonSchema, schema_for};
use serde_json::Value;

/// Name and text of each file in `schemas/`.
pub fn schema_files() -> Vec<(&'static str, String)> {
    let schemas = schemas()
        .into_iter()
        .map(|(name, schema)| (name, format!("{schema:#}\n")));
    schemas.chain([("README.md", reference())]).collect()
}

/// File name and schema (JSON Schema 2020-12) of the job file and of each record.
pub(crate) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("calibration.schema.json", of::<CalibrationRecord>()),
        ("commit.schema.json", of::<CommitRecord>()),
        ("device.schema.json", of::<DeviceRecord>()),
        ("input.schema.json", of::<InputRecord>()),
        ("job-record.schema.json", of::<JobRecord>()),
        ("job.schema.json", spec::json_schema()),
        ("manifest.schema.json", of::<Manifest>()),
        ("plan.schema.json", of::<Plan>()),
        ("span.schema.json", of::<CheckpointRecord>()),
        ("strikes.schema.json", of::<StrikesRecord>()),
        ("train.schema.json", spec::train_schema()),
    ]
}

fn of<T: JsonSchema>() -> Value {
    schema_for!(T).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_files_in_schemas_are_the_generated_ones() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("schemas");
        let remedy = "schemas/ is stale: run `affectmill schema -o schemas`";
        for (name, text) in schema_files() {
            let stored = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert!(stored == text, "{name}: {remedy}");
        }
        let there: BTreeSet<String> = std::fs::read_dir(folder)
            .expect(remedy)
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let generated = schema_files().iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(there, generated, "{remedy}, and remove what it does not write");
    }
}
