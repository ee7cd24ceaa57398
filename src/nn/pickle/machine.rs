//! The stack machine: opcodes to nodes.

use super::{Id, Node, torch};
use std::collections::HashMap;

/// A step's result; an error says what is wrong, the caller knows where.
pub(super) type Step<T> = Result<T, String>;

/// The state of the machine.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack where a mark was set.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Bytes read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Everything built so far.
    pub(super) fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }

    /// One opcode (names and meanings: CPython's `pickletools`). Gives the result at the stop opcode.
    #[expect(clippy::too_many_lines, reason = "one arm for each opcode")]
    pub(super) fn step(&mut self) -> Step<Option<Id>> {
        match self.take(1)?[0] {
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
                let made = torch::call(&self.nodes, callable, args)?;
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
                let storage = torch::storage(&self.nodes, id)?;
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
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    } else {
        Err("a dict with a key that has no value".to_owned())
    }
}
