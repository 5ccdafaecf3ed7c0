//! The stack machine that a pickle is a program for, as far as files of tensors use it.

use std::collections::HashMap;

/// What is wrong with the pickle.
type Parsed<T> = Result<T, String>;

/// More than any tensor has; what is shared in the pickle is copied out of it, so it must be small.
const MOST_DIMENSIONS: usize = 8;
/// Longer than the names of any storage, in bytes.
const MOST_NAME: usize = 256;

/// A tensor as the pickle describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// Class of its storage.
    pub storage: String,
    /// Name of its storage in the archive.
    pub key: String,
    /// First value in the storage.
    pub offset: usize,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values from one to the next of each dimension.
    stride: Vec<usize>,
}

impl Described {
    /// Whether its values are one after the other in the storage.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1usize;
        self.shape.len() == self.stride.len()
            && self.shape.iter().zip(&self.stride).rev().all(|(&size, &stride)| {
                let here = size <= 1 || stride == expected;
                expected = expected.saturating_mul(size);
                here
            })
    }
}

/// Number of a value.
type Id = usize;

/// A value of the machine.
#[derive(Debug, Clone)]
enum Value {
    /// A mark on the stack.
    Mark,
    /// None, truth values, floats: nothing that tensors depend on.
    Other,
    Int(i64),
    Text(String),
    /// A name that a constructor may have.
    Name(Name),
    /// A class of storages.
    Storage(String),
    /// A tuple or a list.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Tensor(Described),
}

#[derive(Debug, Clone, Copy)]
enum Name {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    Tensor,
    /// `torch._utils._rebuild_parameter`.
    Parameter,
}

/// Runs a pickle; the tensors of the dictionary that it makes, by their names.
pub fn tensors(pickle: &[u8]) -> Parsed<Vec<(String, Described)>> {
    let mut machine = Machine { pickle, at: 0, values: Vec::new(), stack: Vec::new(), memo: HashMap::new() };
    while machine.step()? {}
    let result = machine.pop()?;
    let Value::Dict(pairs) = &machine.values[result] else {
        return Err("holds no dictionary of tensors".into());
    };
    let named = |&(key, value): &(Id, Id)| match (&machine.values[key], &machine.values[value]) {
        (Value::Text(name), Value::Tensor(tensor)) => Some((name.clone(), tensor.clone())),
        _ => None,
    };
    Ok(pairs.iter().filter_map(named).collect())
}

struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    memo: HashMap<u64, Id>,
}

impl Machine<'_> {
    /// Carries out one opcode; false at the end.
    fn step(&mut self) -> Parsed<bool> {
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return Ok(false),
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            0x94 => {
                let number = self.memo.len() as u64;
                self.memo.insert(number, self.top()?);
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'(' => self.push(Value::Mark),
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            b'G' => {
                self.take(8)?;
                self.push(Value::Other);
            }
            b'K' | b'M' | b'J' | 0x8a => self.int(opcode)?,
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            b'c' => self.global()?,
            b')' | b']' => self.push(Value::List(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items));
            }
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
            b'}' => self.push(Value::Dict(Vec::new())),
            b's' => self.set_items(2)?,
            b'u' => self.set_items(0)?,
            b'a' | b'e' | b'b' => self.extend(opcode)?,
            b'Q' => self.storage()?,
            b'R' => self.construct()?,
            _ => return Err(format!("has pickle opcode {opcode:#04x} at byte {}, which no tensor needs", self.at - 1)),
        }
        Ok(true)
    }

    fn take(&mut self, len: usize) -> Parsed<&[u8]> {
        let bytes = self.pickle[self.at..].get(..len).ok_or("is cut off or damaged: its pickle ends too soon")?;
        self.at += len;
        Ok(bytes)
    }

    /// A little-endian number of `len` bytes.
    fn number(&mut self, len: usize) -> Parsed<u64> {
        Ok(self.take(len)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Parsed<Id> {
        self.stack.pop().ok_or_else(|| "is damaged: its pickle takes from an empty stack".into())
    }

    fn top(&self) -> Parsed<Id> {
        self.stack.last().copied().ok_or_else(|| "is damaged: its pickle looks at an empty stack".into())
    }

    fn pop_to_mark(&mut self) -> Parsed<Vec<Id>> {
        let mark = self.stack.iter().rposition(|&id| matches!(self.values[id], Value::Mark));
        let items = self.stack.split_off(mark.ok_or("is damaged: its pickle lacks a mark")?);
        Ok(items[1..].to_vec())
    }

    fn remember(&mut self, len: usize) -> Parsed<()> {
        let number = self.number(len)?;
        self.memo.insert(number, self.top()?);
        Ok(())
    }

    fn recall(&mut self, len: usize) -> Parsed<()> {
        let number = self.number(len)?;
        let id = *self.memo.get(&number).ok_or("is damaged: its pickle recalls what it never made")?;
        self.stack.push(id);
        Ok(())
    }

    fn int(&mut self, opcode: u8) -> Parsed<()> {
        let value = match opcode {
            b'K' => self.number(1)? as i64,
            b'M' => self.number(2)? as i64,
            b'J' => i64::from(self.number(4)? as u32 as i32),
            _ => {
                let len = self.number(1)? as usize;
                if len > 8 {
                    return Err("is damaged: its pickle has a number of more than 64 bits".into());
                }
                let shift = 64 - 8 * len as u32;
                (self.number(len)? as i64).checked_shl(shift).map_or(0, |high| high >> shift)
            }
        };
        self.push(Value::Int(value));
        Ok(())
    }

    fn text(&mut self, len: usize) -> Parsed<()> {
        let len = self.number(len)? as usize;
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn line(&mut self) -> Parsed<String> {
        let len = self.pickle[self.at..].iter().position(|&byte| byte == b'\n');
        let line = String::from_utf8_lossy(self.take(len.unwrap_or(usize::MAX))?).into_owned();
        self.take(1)?;
        Ok(line)
    }

    fn global(&mut self) -> Parsed<()> {
        let (module, name) = (self.line()?, self.line()?);
        let value = match (module.as_str(), name.as_str()) {
            ("collections", "OrderedDict") => Value::Name(Name::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Value::Name(Name::Tensor),
            ("torch._utils", "_rebuild_parameter") => Value::Name(Name::Parameter),
            ("torch", class) if class.ends_with("Storage") => Value::Storage(name),
            _ => return Err(format!("names {module}.{name}; files of tensors never need it, so it is not read")),
        };
        self.push(value);
        Ok(())
    }

    fn tuple(&mut self, len: usize) -> Parsed<()> {
        let start = self.stack.len().checked_sub(len).ok_or("is damaged: its pickle lacks the parts of a tuple")?;
        let items = self.stack.split_off(start);
        self.push(Value::List(items));
        Ok(())
    }

    /// Adds pairs to the dictionary below them: `n` items, or all down to the mark.
    fn set_items(&mut self, n: usize) -> Parsed<()> {
        let items = match n {
            0 => self.pop_to_mark()?,
            n => {
                let start = self.stack.len().checked_sub(n).ok_or("is damaged: its pickle lacks a pair")?;
                self.stack.split_off(start)
            }
        };
        let dict = self.top()?;
        let Value::Dict(pairs) = &mut self.values[dict] else {
            return Err("is damaged: its pickle sets items of what is no dictionary".into());
        };
        pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    /// Items of lists and state of objects: nothing that tensors depend on.
    fn extend(&mut self, opcode: u8) -> Parsed<()> {
        match opcode {
            b'e' => drop(self.pop_to_mark()?),
            _ => drop(self.pop()?),
        }
        self.top().map(drop)
    }

    /// `('storage', class, key, location, length)`, kept as it is.
    fn storage(&mut self) -> Parsed<()> {
        let id = self.top()?;
        match &self.values[id] {
            Value::List(parts) if parts.len() == 5 => Ok(()),
            _ => Err("is damaged: its pickle refers to something other than a storage".into()),
        }
    }

    fn construct(&mut self) -> Parsed<()> {
        let (arguments, name) = (self.pop()?, self.pop()?);
        let Value::List(arguments) = &self.values[arguments] else {
            return Err("is damaged: its pickle lacks the arguments of a constructor".into());
        };
        let value = match self.values[name] {
            Value::Name(Name::OrderedDict) => Value::Dict(Vec::new()),
            Value::Name(Name::Tensor) => Value::Tensor(self.tensor(arguments).ok_or("describes a tensor wrongly")?),
            Value::Name(Name::Parameter) => {
                let tensor = arguments.first().map(|&id| &self.values[id]);
                tensor.filter(|value| matches!(value, Value::Tensor(_))).ok_or("describes a parameter wrongly")?.clone()
            }
            _ => return Err("is damaged: its pickle constructs what cannot be constructed".into()),
        };
        self.push(value);
        Ok(())
    }

    /// `(storage, offset, sizes, strides, …)`.
    fn tensor(&self, arguments: &[Id]) -> Option<Described> {
        let list = |id: Id| match &self.values[id] {
            Value::List(items) => Some(items),
            _ => None,
        };
        let size = |id: &Id| match self.values[*id] {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        };
        let &[storage, offset, shape, stride, ..] = arguments else { return None };
        let dimensions = |id: Id| list(id)?.iter().take(MOST_DIMENSIONS + 1).map(size).collect::<Option<Vec<_>>>();
        let (Value::Storage(class), Value::Text(key)) =
            (&self.values[*list(storage)?.get(1)?], &self.values[*list(storage)?.get(2)?])
        else {
            return None;
        };
        let described = Described {
            storage: class.clone(),
            key: key.clone(),
            offset: size(&offset)?,
            shape: dimensions(shape)?,
            stride: dimensions(stride)?,
        };
        let small = described.shape.len() <= MOST_DIMENSIONS && key.len() + class.len() <= MOST_NAME;
        small.then_some(described)
    }
}
