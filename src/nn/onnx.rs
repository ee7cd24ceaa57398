//! Reads the part of ONNX files that weights need: nodes in order, initialisers.
//!
//! Flows in: the bytes of a file in the wire format of Protocol Buffers (fields of `ModelProto`, `GraphProto`, `NodeProto`
//! and `TensorProto` as numbered in onnx.proto3). Flows out: operators with the names of their inputs, and tensors of
//! float32. Nothing is run, and nothing larger than the file is allocated.

use super::state::Array;
use std::collections::BTreeMap;

/// Nodes of the graph in order, and its weights.
pub(super) struct Graph {
    pub nodes: Vec<Node>,
    pub tensors: BTreeMap<String, Array>,
}

/// One operator.
#[derive(Default)]
pub(super) struct Node {
    /// `Conv`, `Relu`, …
    pub operator: String,
    /// Names of activations and weights, as the operator orders them.
    pub inputs: Vec<String>,
}

/// TensorProto.DataType.FLOAT.
const FLOAT: u64 = 1;

impl Graph {
    /// Reads a file; the error says at which byte it is not ONNX, or what is unsupported.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut graph = None;
        for field in Fields::new(bytes) {
            if let (7, Value::Bytes(bytes)) = field? {
                graph = Some(bytes);
            }
        }
        let (mut nodes, mut tensors) = (Vec::new(), BTreeMap::new());
        for field in Fields::new(graph.ok_or("it holds no graph")?) {
            match field? {
                (1, Value::Bytes(bytes)) => nodes.push(node(bytes)?),
                (5, Value::Bytes(bytes)) => {
                    let (name, array) = tensor(bytes)?;
                    tensors.extend(array.map(|array| (name, array)));
                }
                _ => {}
            }
        }
        Ok(Self { nodes, tensors })
    }
}

fn node(bytes: &[u8]) -> Result<Node, String> {
    let mut node = Node::default();
    for field in Fields::new(bytes) {
        match field? {
            (1, Value::Bytes(name)) => node.inputs.push(text(name)?),
            (4, Value::Bytes(name)) => node.operator = text(name)?,
            _ => {}
        }
    }
    Ok(node)
}

/// A tensor's name, and its values if they are float32 and inside the file.
fn tensor(bytes: &[u8]) -> Result<(String, Option<Array>), String> {
    let (mut shape, mut name, mut kind, mut data) = (Vec::new(), String::new(), 0, Vec::new());
    for field in Fields::new(bytes) {
        match field? {
            (1, Value::Number(n)) => shape.push(length(n)?),
            (1, Value::Bytes(packed)) => {
                let mut rest = packed;
                while !rest.is_empty() {
                    shape.push(length(varint(&mut rest).ok_or("a shape is cut off")?)?);
                }
            }
            (2, Value::Number(n)) => kind = n,
            (4 | 9, Value::Bytes(raw)) => {
                data = raw
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|value| f32::from_le_bytes(*value))
                    .collect();
            }
            (8, Value::Bytes(bytes)) => name = text(bytes)?,
            _ => {}
        }
    }
    if kind != FLOAT {
        return Ok((name, None));
    }
    let elements = shape
        .iter()
        .try_fold(1_usize, |product, &n| product.checked_mul(n));
    if elements != Some(data.len()) {
        return Err(format!("tensor `{name}` {shape:?} holds {} values", data.len()));
    }
    Ok((name, Some(Array { shape, data })))
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a name is not UTF-8".into())
}

fn length(n: u64) -> Result<usize, String> {
    usize::try_from(n).map_err(|_| format!("an axis of {n} elements"))
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no field that is read here uses.
    Fixed,
}

/// The fields of one message, with their numbers.
struct Fields<'a> {
    whole: usize,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            whole: bytes.len(),
            rest: bytes,
        }
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = varint(&mut self.rest)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut self.rest)?),
            1 => take(&mut self.rest, 8).map(|_| Value::Fixed)?,
            2 => {
                let length = varint(&mut self.rest)?.try_into().ok()?;
                Value::Bytes(take(&mut self.rest, length)?)
            }
            5 => take(&mut self.rest, 4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.whole - self.rest.len();
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or_else(|| {
            format!(
                "no ONNX: byte {at} of {} of a message begins no field",
                self.whole
            )
        }))
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
