//! Meaning of a TorchScript module's outputs: a job assigns them the names of the program's own outputs.

use super::{ModelKind, Task};
use serde::{Deserialize, Serialize};

/// Name of an output that is ignored.
const IGNORED: &str = "_";

/// A job's kind of model: one of this program's networks, or the user's own TorchScript module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NetworkKind {
    /// A module whose outputs the job names.
    #[serde(rename = "torchscript")]
    TorchScript,
    /// A network whose outputs follow from its kind.
    #[serde(untagged)]
    Own(ModelKind),
}

impl NetworkKind {
    /// The names of all kinds in job files.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let own = ModelKind::ALL.into_iter().map(ModelKind::name);
        own.chain([Self::TorchScript.name()])
    }

    /// The name used in job files.
    pub fn name(self) -> &'static str {
        match self {
            Self::TorchScript => "torchscript",
            Self::Own(kind) => kind.name(),
        }
    }

    /// The tasks that it predicts, in output order. `outputs` names a module's outputs; this program's networks ignore it.
    pub fn tasks<N: AsRef<str>>(self, outputs: &[N]) -> &'static [Task] {
        match self {
            Self::TorchScript => NamedOutputs::tasks(outputs),
            Self::Own(kind) => kind.tasks(),
        }
    }
}

impl From<ModelKind> for NetworkKind {
    fn from(kind: ModelKind) -> Self {
        Self::Own(kind)
    }
}

/// Positions of each task's values in a module's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedOutputs {
    columns: Vec<usize>,
    width: usize,
}

/// Why names of outputs are invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadOutputs {
    /// Nothing is named.
    Nothing,
    /// The name at this index is no output.
    Unknown(usize, String),
    /// The name at this index repeats an output.
    Twice(usize, &'static str),
    /// Outputs of a task that are missing although others of it are named.
    Missing(Task, Vec<&'static str>),
}

impl NamedOutputs {
    /// Every valid name: tasks (all their outputs in order), outputs, and `_`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let outputs = Task::ALL.into_iter().flat_map(Task::outputs).copied();
        let tasks = Task::ALL.into_iter().map(Task::name);
        tasks.chain(outputs).chain([IGNORED])
    }

    /// The tasks that are named, in output order.
    pub fn tasks<N: AsRef<str>>(names: &[N]) -> &'static [Task] {
        use super::Task::{Au, Expr, Va};
        let named = |task: Task| {
            let mut names = names.iter().map(AsRef::as_ref);
            names.any(|name| name == task.outputs()[0] || name == task.name())
        };
        match Task::ALL.map(named) {
            [true, true, true] => &[Va, Expr, Au],
            [true, true, false] => &[Va, Expr],
            [true, false, true] => &[Va, Au],
            [true, false, false] => &[Va],
            [false, true, true] => &[Expr, Au],
            [false, true, false] => &[Expr],
            [false, false, true] => &[Au],
            [false, false, false] => &[],
        }
    }

    /// The name of each output; a task's name expands to all its outputs.
    pub fn spelled<N: AsRef<str>>(names: &[N]) -> Vec<String> {
        let mut spelled = Vec::new();
        for name in names.iter().map(AsRef::as_ref) {
            match Task::ALL.into_iter().find(|task| task.name() == name) {
                Some(task) => spelled.extend(task.outputs().iter().map(|output| (*output).into())),
                None => spelled.push(name.into()),
            }
        }
        spelled
    }

    /// Parses the names of all outputs, in the module's order.
    ///
    /// # Errors
    /// [`BadOutputs`], unless each named task has all its outputs exactly once.
    pub fn new<N: AsRef<str>>(names: &[N]) -> Result<Self, BadOutputs> {
        let known: Vec<&str> = Self::names().collect();
        let mut named: Vec<(usize, String)> = Vec::new();
        for (place, name) in names.iter().map(AsRef::as_ref).enumerate() {
            if !known.contains(&name) {
                return Err(BadOutputs::Unknown(place, name.into()));
            }
            named.extend(Self::spelled(&[name]).into_iter().map(|name| (place, name)));
        }
        let mut columns = Vec::new();
        for task in Task::ALL {
            let mut missing = Vec::new();
            for output in task.outputs() {
                let mut found = (0..named.len()).filter(|&column| named[column].1 == *output);
                match (found.next(), found.next()) {
                    (None, _) => missing.push(*output),
                    (Some(column), None) => columns.push(column),
                    (Some(_), Some(again)) => return Err(BadOutputs::Twice(named[again].0, output)),
                }
            }
            if !missing.is_empty() && missing.len() < task.outputs().len() {
                return Err(BadOutputs::Missing(task, missing));
            }
        }
        match columns.as_slice() {
            [] => Err(BadOutputs::Nothing),
            _ => Ok(Self {
                columns,
                width: named.len(),
            }),
        }
    }

    /// The column of each output in the module's tensor, grouped by task in output order.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Number of the module's outputs per face.
    pub fn width(&self) -> usize {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_come_in_any_order_and_some_be_left_out() {
        let faces = [
            "arousal",
            "_",
            "valence",
            "Surprise",
            "Neutral",
            "Happiness",
            "Anger",
            "Fear",
            "Disgust",
            "Sadness",
        ];
        let outputs = NamedOutputs::new(&faces).unwrap();
        assert_eq!(outputs.width(), 10);
        // Valence, arousal; Neutral, Anger, Disgust, Fear, Happiness, Sadness, Surprise.
        assert_eq!(outputs.columns(), [2, 0, 4, 6, 8, 7, 5, 9, 3]);
        assert_eq!(NamedOutputs::tasks(&faces), [Task::Va, Task::Expr]);

        let short = NamedOutputs::new(&["au", "va"]).unwrap();
        assert_eq!(short.columns()[..3], [12, 13, 0]);
        assert_eq!((short.width(), short.columns().len()), (14, 14));
        assert_eq!(NamedOutputs::tasks(&["au", "va"]), [Task::Va, Task::Au]);
        let spelled = NamedOutputs::spelled(&["au", "va"]);
        assert_eq!(NamedOutputs::new(&spelled), Ok(short));
        assert_eq!(NamedOutputs::tasks(&spelled), [Task::Va, Task::Au]);
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let refused = |names: &[&str]| NamedOutputs::new(names).unwrap_err();
        assert_eq!(refused(&[]), BadOutputs::Nothing);
        assert_eq!(refused(&["_"]), BadOutputs::Nothing);
        assert_eq!(refused(&["va", "happy"]), BadOutputs::Unknown(1, "happy".into()));
        assert_eq!(refused(&["va", "arousal"]), BadOutputs::Twice(1, "arousal"));
        assert_eq!(
            refused(&["arousal"]),
            BadOutputs::Missing(Task::Va, vec!["valence"])
        );
    }

    #[test]
    fn kinds_are_text_in_files() {
        for (kind, text) in [
            (NetworkKind::TorchScript, "\"torchscript\""),
            (NetworkKind::Own(ModelKind::TeacherVa), "\"teacher_va\""),
        ] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), text);
            assert_eq!(serde_json::from_str::<NetworkKind>(text).unwrap(), kind);
        }
        assert!(serde_json::from_str::<NetworkKind>("\"teacher\"").is_err());
    }
}
