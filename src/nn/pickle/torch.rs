//! torch's part of a pickle: the supported calls, and the names of storages.

use super::machine::Step;
use super::{Id, Node, Storage, Tensor};
use crate::dtype::Dtype;

/// The value of calling `callable` with `args`: opaque but for three callables.
pub(super) fn call(nodes: &[Node], callable: Id, args: Id) -> Step<Node> {
    let (Node::Global(module, name), Node::Tuple(args)) = (&nodes[callable], &nodes[args]) else {
        return Ok(Node::Opaque);
    };
    match (&**module, &**name, args.as_slice()) {
        ("collections", "OrderedDict", []) => Ok(Node::Dict(Vec::new())),
        ("torch._utils", "_rebuild_tensor_v2", &[storage, offset, shape, strides, ..]) => {
            tensor(nodes, storage, offset, shape, strides)
        }
        ("torch._utils", "_rebuild_parameter", &[data, ..]) => Ok(match &nodes[data] {
            Node::Tensor(tensor) => Node::Tensor(tensor.clone()),
            _ => Node::Opaque,
        }),
        _ => Ok(Node::Opaque),
    }
}

fn tensor(nodes: &[Node], storage: Id, offset: Id, shape: Id, strides: Id) -> Step<Node> {
    let Node::Storage(storage) = &nodes[storage] else {
        return Ok(Node::Opaque);
    };
    let offset = size(nodes, offset).ok_or("a tensor whose offset is no number")?;
    let shape = sizes(nodes, shape).ok_or("a tensor whose shape is not up to 8 sizes")?;
    let strides = sizes(nodes, strides).filter(|strides| strides.len() == shape.len());
    let strides = strides.ok_or("a tensor whose strides do not match its shape")?;
    Ok(Node::Tensor(Tensor {
        storage: storage.clone(),
        offset,
        shape,
        strides,
    }))
}

fn size(nodes: &[Node], id: Id) -> Option<usize> {
    match nodes[id] {
        Node::Int(value) => usize::try_from(value).ok(),
        _ => None,
    }
}

fn sizes(nodes: &[Node], id: Id) -> Option<Vec<usize>> {
    match &nodes[id] {
        Node::Tuple(items) if items.len() <= 8 => items.iter().map(|&item| size(nodes, item)).collect(),
        _ => None,
    }
}

/// A persistent id: `('storage', type, key, location, length[, view])`.
pub(super) fn storage(nodes: &[Node], id: Id) -> Step<Node> {
    let parts = match &nodes[id] {
        Node::Tuple(parts) => parts.as_slice(),
        _ => &[],
    };
    let &[tag, class, key, _, len, ..] = parts else {
        return Ok(Node::Opaque);
    };
    match (&nodes[tag], &nodes[class], &nodes[key], size(nodes, len)) {
        (Node::Str(tag), Node::Global(_, class), Node::Str(key), Some(len)) if &**tag == "storage" => {
            if parts
                .get(5)
                .is_some_and(|&view| !matches!(nodes[view], Node::Opaque))
            {
                return Err("a storage inside another, as PyTorch before 0.4 wrote them".to_owned());
            }
            let dtype = dtype(class).ok_or_else(|| format!("a storage of unknown type `{class}`"))?;
            Ok(Node::Storage(Storage {
                key: key.clone(),
                dtype,
                len,
            }))
        }
        _ => Err("a storage that is not described as torch.save does".to_owned()),
    }
}

/// Element type of a storage class of `torch`.
fn dtype(class: &str) -> Option<Dtype> {
    Some(match class {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::Bf16,
        "LongStorage" => Dtype::Other("int64", 8),
        "IntStorage" => Dtype::Other("int32", 4),
        "ShortStorage" => Dtype::Other("int16", 2),
        "CharStorage" => Dtype::Other("int8", 1),
        "ByteStorage" => Dtype::Other("uint8", 1),
        "BoolStorage" => Dtype::Other("bool", 1),
        "UntypedStorage" => Dtype::Other("untyped bytes", 1),
        "QInt8Storage" | "QUInt8Storage" => Dtype::Other("quantised int8", 1),
        "QInt32Storage" => Dtype::Other("quantised int32", 4),
        "ComplexFloatStorage" => Dtype::Other("complex64", 8),
        "ComplexDoubleStorage" => Dtype::Other("complex128", 16),
        _ => return None,
    })
}
