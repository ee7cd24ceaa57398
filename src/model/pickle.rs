//! Reads the pickles in PyTorch checkpoints without executing anything.
//!
//! A pickle is a program for a stack machine that can call any Python function. This machine knows the opcodes of
//! protocols 0 to 5 and builds plain values; of all callables it knows three: `collections.OrderedDict` (a dict),
//! `torch._utils._rebuild_tensor_v2` (a tensor) and `torch._utils._rebuild_parameter` (its tensor). Whatever else a
//! pickle names or calls becomes [`Node::Opaque`]: kept as a place in the tree, never run, no error by itself.
//!
//! Flows in: bytes, of which none is trusted. Flows out: a [`Tree`] whose size is bounded by the number of bytes, since no
//! opcode adds more than one node or copies what others hold.

use super::dtype::Dtype;
use std::collections::HashMap;
use std::rc::Rc;

/// Index of a node in its tree.
pub(super) type Id = usize;

/// A value. Containers hold ids, because pickles share and may nest values in a circle.
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
    /// A value this reader has no use for.
    Opaque,
}

/// A block of elements that lies elsewhere in the checkpoint.
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

/// What a pickle holds.
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

/// Why and where bytes are no pickle this reader can follow.
#[derive(Debug)]
pub(super) struct Malformed {
    /// Bytes from the start of the pickle.
    pub at: usize,
    pub cause: String,
}

type Step<T> = Result<T, String>;

/// Reads the first pickle in `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Tree, Malformed> {
    let mut machine = Machine {
        bytes,
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                return Ok(Tree {
                    nodes: machine.nodes,
                    root,
                    length: machine.at,
                });
            }
            Err(cause) => return Err(Malformed { at, cause }),
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack where a mark was set.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    /// One opcode (names and meanings: CPython's `pickletools`). Gives the result at the stop opcode.
    fn step(&mut self) -> Step<Option<Id>> {
        match self.uint(1)? as u8 {
            0x80 => self.skip(1)?, // PROTO
            0x95 => self.skip(8)?, // FRAME
            b'.' => return self.pop().map(Some),

            // Constants.
            b'N' | 0x88 | 0x89 => self.push(Node::Opaque), // NONE, NEWTRUE, NEWFALSE
            b'G' => self.opaque_bytes(8)?,                 // BINFLOAT
            b'F' => {
                self.line()?;
                self.push(Node::Opaque);
            }
            b'J' => {
                let value = self.uint(4)? as u32 as i32;
                self.push(Node::Int(value.into()));
            }
            b'K' => self.int(1)?,
            b'M' => self.int(2)?,
            b'I' | b'L' => {
                // `00` and `01` are False and True; a long ends in `L`.
                let number = self.line()?.trim_end_matches('L').parse();
                self.push(number.map_or(Node::Opaque, Node::Int));
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'X' => self.unicode(4)?,
            0x8c => self.unicode(1)?,
            0x8d => self.unicode(8)?,
            b'V' => {
                let text = self.line()?;
                self.push(Node::Str(text.into()));
            }
            b'S' => {
                let text = self.line()?.trim_matches(['\'', '"']);
                self.push(Node::Str(text.into()));
            }
            // Strings of Python 2: text where they are UTF-8.
            b'T' => self.old_string(4)?,
            b'U' => self.old_string(1)?,
            b'B' => self.sized_bytes(4)?,
            b'C' => self.sized_bytes(1)?,
            0x8e | 0x96 => self.sized_bytes(8)?,

            // Containers.
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Node::Tuple(Vec::new())),
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            0x8f => self.push(Node::Opaque), // EMPTY_SET
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items));
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(pairs(&items)?));
            }
            0x91 => {
                self.pop_to_mark()?; // FROZENSET
                self.push(Node::Opaque);
            }
            code @ 0x85..=0x87 => {
                let count = code as usize - 0x84;
                let start = self.height(count)?;
                let items = self.stack.split_off(start);
                self.push(Node::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.extend(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }

            // The stack and the memo.
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'p' => {
                let key = self.line()?.parse().map_err(|_| "a memo key that is no number")?;
                self.remember(key)?;
            }
            b'q' => {
                let key = self.uint(1)?;
                self.remember(key)?;
            }
            b'r' => {
                let key = self.uint(4)?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'g' => {
                let key = self.line()?.parse().map_err(|_| "a memo key that is no number")?;
                self.recall(key)?;
            }
            b'h' => {
                let key = self.uint(1)?;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.uint(4)?;
                self.recall(key)?;
            }

            // Names, objects, calls: read, never run.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(module.into(), name.into()));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let named = match (&self.nodes[module], &self.nodes[name]) {
                    (Node::Str(module), Node::Str(name)) => Node::Global(module.clone(), name.clone()),
                    _ => return Err("a name that is not text".to_owned()),
                };
                self.push(named);
            }
            b'R' => {
                let (args, callable) = (self.pop()?, self.pop()?);
                let made = self.call(callable, args)?;
                self.push(made);
            }
            b'b' => {
                self.pop()?; // BUILD: the state of the object below it.
                self.top()?;
            }
            0x81 => {
                self.pop()?;
                self.pop()?;
                self.push(Node::Opaque); // NEWOBJ
            }
            0x92 => {
                self.stack.truncate(self.height(3)?);
                self.push(Node::Opaque); // NEWOBJ_EX
            }
            b'o' => {
                self.pop_to_mark()?;
                self.push(Node::Opaque);
            }
            b'i' => {
                self.line()?;
                self.line()?;
                self.pop_to_mark()?;
                self.push(Node::Opaque);
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage);
            }
            b'P' => {
                self.line()?;
                self.push(Node::Opaque);
            }
            code => return Err(format!("opcode {code:#04x} is not one that torch.save writes")),
        }
        Ok(None)
    }

    // Reading.

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(count);
        let taken = end
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or("the pickle is cut off")?;
        self.at += count;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Step<()> {
        self.take(count).map(drop)
    }

    /// A little-endian unsigned number of up to 8 bytes.
    fn uint(&mut self, size: usize) -> Step<u64> {
        Ok(self
            .take(size)?
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or("the pickle is cut off")?;
        let line = self.take(end + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|_| "text that is not UTF-8".to_owned())
    }

    /// Bytes preceded by their number in `size` bytes.
    fn sized(&mut self, size: usize) -> Step<&'a [u8]> {
        let length = usize::try_from(self.uint(size)?).map_err(|_| "the pickle is cut off")?;
        self.take(length)
    }

    fn unicode(&mut self, size: usize) -> Step<()> {
        // Python writes lone surrogates; no name of a tensor has one.
        let text = String::from_utf8_lossy(self.sized(size)?);
        self.push(Node::Str(text.into()));
        Ok(())
    }

    fn old_string(&mut self, size: usize) -> Step<()> {
        let text = std::str::from_utf8(self.sized(size)?);
        self.push(text.map_or(Node::Opaque, |text| Node::Str(text.into())));
        Ok(())
    }

    fn sized_bytes(&mut self, size: usize) -> Step<()> {
        self.sized(size)?;
        self.push(Node::Opaque);
        Ok(())
    }

    fn opaque_bytes(&mut self, count: usize) -> Step<()> {
        self.skip(count)?;
        self.push(Node::Opaque);
        Ok(())
    }

    fn int(&mut self, size: usize) -> Step<()> {
        let value = self.uint(size)?;
        self.push(Node::Int(value as i64));
        Ok(())
    }

    /// A two's-complement number of any length; those past 64 bits are of no use here.
    fn long(&mut self, size: usize) -> Step<()> {
        let bytes = self.sized(size)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let node = wide.get_mut(..bytes.len()).map(|low| low.copy_from_slice(bytes));
        self.push(node.map_or(Node::Opaque, |()| Node::Int(i64::from_le_bytes(wide))));
        Ok(())
    }

    // The stack.

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    /// Height of the stack without its `count` topmost values, which must lie above the last mark.
    fn height(&self, count: usize) -> Step<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let height = self
            .stack
            .len()
            .checked_sub(count)
            .filter(|&height| height >= floor);
        height.ok_or_else(|| "a value is taken from an empty stack".to_owned())
    }

    fn pop(&mut self) -> Step<Id> {
        self.height(1)?;
        self.stack
            .pop()
            .ok_or_else(|| "a value is taken from an empty stack".to_owned())
    }

    fn top(&self) -> Step<Id> {
        self.height(1).map(|at| self.stack[at])
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, key: u64) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Step<()> {
        let id = self
            .memo
            .get(&key)
            .ok_or_else(|| format!("memo {key} is empty"))?;
        self.stack.push(*id);
        Ok(())
    }

    // Containers. Items given to an opaque object are dropped with it.

    fn extend(&mut self, items: Vec<Id>) -> Step<()> {
        let top = self.top()?;
        if let Node::List(list) = &mut self.nodes[top] {
            list.extend(items);
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Step<()> {
        let top = self.top()?;
        if let Node::Dict(dict) = &mut self.nodes[top] {
            dict.extend(pairs(items)?);
        }
        Ok(())
    }

    // The few calls that are understood.

    fn call(&self, callable: Id, args: Id) -> Step<Node> {
        let (Node::Global(module, name), Node::Tuple(args)) = (&self.nodes[callable], &self.nodes[args])
        else {
            return Ok(Node::Opaque);
        };
        match (&**module, &**name, args.as_slice()) {
            ("collections", "OrderedDict", []) => Ok(Node::Dict(Vec::new())),
            ("torch._utils", "_rebuild_tensor_v2", &[storage, offset, shape, strides, ..]) => {
                self.tensor(storage, offset, shape, strides)
            }
            ("torch._utils", "_rebuild_parameter", &[data, ..]) => Ok(match &self.nodes[data] {
                Node::Tensor(tensor) => Node::Tensor(tensor.clone()),
                _ => Node::Opaque,
            }),
            _ => Ok(Node::Opaque),
        }
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Step<Node> {
        let Node::Storage(storage) = &self.nodes[storage] else {
            return Ok(Node::Opaque);
        };
        let offset = self.size(offset).ok_or("a tensor whose offset is no number")?;
        let shape = self
            .sizes(shape)
            .ok_or("a tensor whose shape is not up to 8 sizes")?;
        let strides = self.sizes(strides).filter(|strides| strides.len() == shape.len());
        let strides = strides.ok_or("a tensor whose strides do not match its shape")?;
        Ok(Node::Tensor(Tensor {
            storage: storage.clone(),
            offset,
            shape,
            strides,
        }))
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.nodes[id] {
            Node::Int(value) => usize::try_from(value).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        match &self.nodes[id] {
            Node::Tuple(items) if items.len() <= 8 => items.iter().map(|&item| self.size(item)).collect(),
            _ => None,
        }
    }

    /// A persistent id: `('storage', type, key, location, length[, view])`.
    fn storage(&self, id: Id) -> Step<Node> {
        let parts = match &self.nodes[id] {
            Node::Tuple(parts) => parts.as_slice(),
            _ => &[],
        };
        let &[tag, class, key, _, len, ..] = parts else {
            return Ok(Node::Opaque);
        };
        match (
            &self.nodes[tag],
            &self.nodes[class],
            &self.nodes[key],
            self.size(len),
        ) {
            (Node::Str(tag), Node::Global(_, class), Node::Str(key), Some(len)) if &**tag == "storage" => {
                if parts
                    .get(5)
                    .is_some_and(|&view| !matches!(self.nodes[view], Node::Opaque))
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
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    } else {
        Err("a dict with a key that has no value".to_owned())
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
