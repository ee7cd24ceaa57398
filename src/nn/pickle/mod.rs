//! Reads the pickles in PyTorch checkpoints without executing anything.
//!
//! A pickle is a program for a stack machine that can call any Python function. This machine knows the opcodes of
//! protocols 0 to 5 and builds plain values; of all callables it knows three: `collections.OrderedDict` (a dict),
//! `torch._utils._rebuild_tensor_v2` (a tensor) and `torch._utils._rebuild_parameter` (its tensor). Anything else that a
//! pickle names or calls becomes [`Node::Opaque`]: a node in the tree, never run, no error by itself.
//!
//! Flows in: bytes, of which none is trusted. Flows out: a [`Tree`] whose size is bounded by the number of bytes, since no
//! opcode adds more than one node or copies the contents of others.

mod machine;
mod torch;

use super::dtype::Dtype;
use machine::Machine;
use std::rc::Rc;

/// Index of a node in its tree.
pub(super) type Id = usize;

/// A value. Containers store ids, because pickles share values and may contain cycles.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Int(i64),
    Str(Rc<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A Python name: module and qualified name.
    Global(Rc<str>, Rc<str>),
    Storage(Storage),
    Tensor(Tensor),
    /// A value that this reader ignores.
    Opaque,
}

/// A block of elements elsewhere in the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    pub key: Rc<str>,
    pub dtype: Dtype,
    /// Number of elements.
    pub len: usize,
}

/// A view of a storage; offset and strides in elements.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// The contents of a pickle.
pub(super) struct Tree {
    nodes: Vec<Node>,
    pub root: Id,
    /// Bytes read, up to and with the stop opcode.
    pub length: usize,
}

impl Tree {
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Every storage the pickle names, in order of appearance.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }
}

/// Why and where bytes are no pickle that this reader supports.
#[derive(Debug)]
pub(super) struct Malformed {
    /// Bytes from the start of the pickle.
    pub at: usize,
    pub cause: String,
}

/// Reads the first pickle in `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Tree, Malformed> {
    let mut machine = Machine::new(bytes);
    loop {
        let at = machine.position();
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                return Ok(Tree {
                    root,
                    length: machine.position(),
                    nodes: machine.into_nodes(),
                });
            }
            Err(cause) => return Err(Malformed { at, cause }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(bytes: &[u8]) -> String {
        let malformed = parse(bytes).err().unwrap();
        format!("{}: {}", malformed.at, malformed.cause)
    }

    #[test]
    fn nothing_a_pickle_calls_is_run() {
        // pickle.dumps of an object whose __reduce__ is (os.system, ('touch /tmp/owned',)), protocol 2.
        let bytes = b"\x80\x02cposix\nsystem\nq\x00X\x10\x00\x00\x00touch /tmp/ownedq\x01\x85q\x02Rq\x03.";
        let tree = parse(bytes).unwrap();
        assert!(matches!(tree.node(tree.root), Node::Opaque));
        assert_eq!(tree.length, bytes.len());
    }

    #[test]
    fn shared_and_circular_values_are_one_node() {
        // l = []; l.append(l)
        let tree = parse(b"\x80\x02]q\x00h\x00a.").unwrap();
        assert!(matches!(tree.node(tree.root), Node::List(items) if items == &[tree.root]));
    }

    #[test]
    fn old_protocols_are_read() {
        // pickle.dumps({'a': (1, 'b'), 'c': -2}, 0)
        let tree = parse(b"(dp0\nVa\np1\n(I1\nVb\np2\ntp3\nsVc\np4\nI-2\ns.").unwrap();
        let Node::Dict(items) = tree.node(tree.root) else {
            panic!()
        };
        assert_eq!(
            items.iter().map(|&(key, _)| tree.text(key)).collect::<Vec<_>>(),
            [Some("a"), Some("c")]
        );
        assert!(matches!(tree.node(items[1].1), Node::Int(-2)));
        // pickle.dumps(-300, 2), pickle.dumps(1 << 80, 2)
        let tree = parse(b"\x80\x02J\xd4\xfe\xff\xff.").unwrap();
        assert!(matches!(tree.node(tree.root), Node::Int(-300)));
        let tree = parse(b"\x80\x02\x8a\x0b\0\0\0\0\0\0\0\0\0\0\x01.").unwrap();
        assert!(matches!(tree.node(tree.root), Node::Opaque));
    }

    #[test]
    fn broken_pickles_are_refused_with_their_position() {
        assert_eq!(cause(b""), "0: the pickle is cut off");
        assert_eq!(cause(b"\x80\x02X\xff\xff\xff\xffab"), "2: the pickle is cut off");
        assert_eq!(
            cause(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"),
            "0: the pickle is cut off"
        );
        assert_eq!(cause(b"\x80\x02."), "2: a value is taken from an empty stack");
        assert_eq!(cause(b"N(0."), "2: a value is taken from an empty stack");
        assert_eq!(cause(b"t"), "0: a mark is missing");
        assert_eq!(cause(b"h\x05"), "0: memo 5 is empty");
        assert_eq!(cause(b"}(Nu."), "3: a dict with a key that has no value");
        assert!(cause(b"\x82\x01").contains("0x82"));
    }
}
