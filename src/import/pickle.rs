//! Pickles as trees of values: what stands in them is read, nothing of it is executed.
//!
//! Classes and functions stay names; what Python would have called or built is kept as the name with its
//! arguments and its state. Values refer to objects by number, so that objects may contain each other, and
//! neither their depth nor how often they are shared takes memory. Every value takes a byte of the pickle at
//! least, and there is a limit to their number.

use std::collections::HashMap;

/// Most values that one pickle may have, and most objects among them: far above any real checkpoint's.
const MAX_VALUES: usize = 1 << 24;
const MAX_OBJECTS: usize = 1 << 21;

/// A value; its texts lie in the pickle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`, and what is of no use here.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number of 64 bits at most; larger ones are [`Value::None`].
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text, also that of Python 2.
    Text(&'a str),
    /// A class or function by its number: see [`Pickle::global`].
    Global(usize),
    /// An object by its number in [`Pickle::objects`].
    Object(usize),
}

/// What has parts.
#[derive(Debug)]
pub enum Object<'a> {
    /// A list or a set.
    List(Vec<Value<'a>>),
    /// A tuple.
    Tuple(Vec<Value<'a>>),
    /// A dictionary: keys and values.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// What the pickle leaves to its reader: PyTorch's storages.
    Persistent(Value<'a>),
    /// What Python would have made.
    Made(Box<Made<'a>>),
}

/// What a class or function would have made of its arguments, and what was then put into it.
#[derive(Debug)]
pub struct Made<'a> {
    /// The class or function.
    pub by: Value<'a>,
    /// A tuple.
    pub arguments: Value<'a>,
    /// Its state: the attributes as a dictionary, mostly.
    pub state: Value<'a>,
    /// Its entries, where it is a kind of dictionary.
    pub entries: Vec<(Value<'a>, Value<'a>)>,
    /// Its elements, where it is a kind of list.
    pub elements: Vec<Value<'a>>,
}

/// A pickle that was read.
pub struct Pickle<'a> {
    /// The one value that it holds.
    pub root: Value<'a>,
    objects: Vec<Object<'a>>,
    globals: Vec<(&'a str, &'a str)>,
    /// Number of bytes up to its end.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the beginning of `content`.
    ///
    /// # Errors
    /// What was found in place of a pickle, with the byte.
    pub fn read(content: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine {
            content,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            objects: Vec::new(),
            globals: Vec::new(),
            values: 0,
        };
        let root = loop {
            let before = machine.at;
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => break root,
                Err(problem) => return Err(format!("{problem} at byte {before} of the pickle")),
            }
        };
        Ok(Self {
            root,
            objects: machine.objects,
            globals: machine.globals,
            length: machine.at,
        })
    }

    /// All objects, in the order in which they begin.
    pub fn objects(&self) -> &[Object<'a>] {
        &self.objects
    }

    /// The object that a value refers to.
    pub fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(number) => self.objects.get(number),
            _ => None,
        }
    }

    /// Module and name of a class or function.
    pub fn global(&self, value: Value<'a>) -> Option<(&'a str, &'a str)> {
        match value {
            Value::Global(number) => self.globals.get(number).copied(),
            _ => None,
        }
    }

    /// The elements of a list or a tuple; none for any other value.
    pub fn elements(&self, value: Value<'a>) -> &[Value<'a>] {
        match self.object(value) {
            Some(Object::List(elements) | Object::Tuple(elements)) => elements,
            _ => &[],
        }
    }

    /// The entries of a dictionary; none for any other value.
    pub fn entries(&self, value: Value<'a>) -> &[(Value<'a>, Value<'a>)] {
        match self.object(value) {
            Some(Object::Dict(entries)) => entries,
            Some(Object::Made(made)) => &made.entries,
            _ => &[],
        }
    }

    /// The value of a dictionary under a name.
    pub fn entry(&self, value: Value<'a>, name: &str) -> Option<Value<'a>> {
        let mut entries = self.entries(value).iter().rev();
        entries.find_map(|(key, value)| (*key == Value::Text(name)).then_some(*value))
    }
}

/// The state of a reader of pickles.
struct Machine<'a> {
    content: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
    objects: Vec<Object<'a>>,
    globals: Vec<(&'a str, &'a str)>,
    /// Number of values so far.
    values: usize,
}

/// A step's result: the whole value at the end, or the problem.
type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// Carries out one opcode; gives the value when that was the last one.
    fn step(&mut self) -> Step<Option<Value<'a>>> {
        let [opcode] = self.number_bytes()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            // Protocol, frame.
            0x80 => drop(self.bytes(1)?),
            0x95 => drop(self.bytes(8)?),
            b'(' => {
                self.count()?;
                self.marks.push(self.stack.len());
            }
            b'0' => match self.marks.last() {
                Some(mark) if *mark == self.stack.len() => drop(self.marks.pop()),
                _ => drop(self.pop()?),
            },
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = self.pop()?;
                self.push(top)?;
                self.push(top)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' | b'K' | b'M' | b'I' | b'L' | 0x8a | 0x8b | b'F' | b'G' => self.number(opcode)?,
            b'S' | b'T' | b'U' | b'V' | b'X' | b'B' | b'C' | 0x8c | 0x8d | 0x8e | 0x96 => {
                let text = self.text(opcode)?;
                self.push(text)?;
            }
            b'c' => {
                let global = self.global()?;
                self.push(global)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => {
                    let global = self.class(module, name)?;
                    self.push(global)?;
                }
                _ => return Err("a class without a name".to_owned()),
            },
            // Classes by numbers that only the writer knows; buffers that are not in the file.
            0x82 => self.unknown(1)?,
            0x83 => self.unknown(2)?,
            0x84 => self.unknown(4)?,
            0x97 => self.unknown(0)?,
            0x98 => {}
            b'P' => {
                let name = self.line()?;
                self.make(Object::Persistent(Value::Text(name)))?;
            }
            b'Q' => {
                let what = self.pop()?;
                self.make(Object::Persistent(what))?;
            }
            b'q' | b'r' | b'p' | 0x94 | b'h' | b'j' | b'g' => self.remember(opcode)?,
            _ => self.container(opcode)?,
        }
        Ok(None)
    }

    /// Opcodes of lists, tuples, dictionaries and of what is made by calls.
    fn container(&mut self, opcode: u8) -> Step<()> {
        match opcode {
            b']' | 0x8f => self.make(Object::List(Vec::new())),
            b'}' => self.make(Object::Dict(Vec::new())),
            b')' => self.make(Object::Tuple(Vec::new())),
            b'l' | 0x91 => {
                let elements = self.since_mark()?;
                self.make(Object::List(elements))
            }
            b't' => {
                let elements = self.since_mark()?;
                self.make(Object::Tuple(elements))
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count);
                let start = start.filter(|start| *start >= self.floor());
                let start = start.ok_or("an empty stack")?;
                let elements = self.stack.split_off(start);
                self.make(Object::Tuple(elements))
            }
            b'd' => {
                let entries = pairs(&self.since_mark()?)?;
                self.make(Object::Dict(entries))
            }
            b'a' => {
                let element = self.pop()?;
                self.append(vec![element])
            }
            b'e' | 0x90 => {
                let elements = self.since_mark()?;
                self.append(elements)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(vec![(key, value)])
            }
            b'u' => {
                let entries = pairs(&self.since_mark()?)?;
                self.insert(entries)
            }
            // Called with arguments; made by its class, also with named arguments.
            b'R' | 0x81 => {
                let (arguments, by) = (self.pop()?, self.pop()?);
                self.make_by(by, arguments)
            }
            0x92 => {
                let (_named, arguments, by) = (self.pop()?, self.pop()?, self.pop()?);
                self.make_by(by, arguments)
            }
            b'i' => {
                let by = self.global()?;
                let arguments = self.since_mark()?;
                self.make(Object::Tuple(arguments))?;
                let arguments = self.pop()?;
                self.make_by(by, arguments)
            }
            b'o' => {
                let mut arguments = self.since_mark()?;
                if arguments.is_empty() {
                    return Err("an object without a class".to_owned());
                }
                let by = arguments.remove(0);
                self.make(Object::Tuple(arguments))?;
                let arguments = self.pop()?;
                self.make_by(by, arguments)
            }
            b'b' => {
                let state = self.pop()?;
                let top = self.top()?;
                if let Some(Object::Made(made)) = self.object(top) {
                    made.state = state;
                }
                Ok(())
            }
            other => Err(format!("no pickle's opcode, {other:#04x}")),
        }
    }

    fn bytes(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = &self.content[self.at..];
        let bytes = rest
            .get(..count)
            .ok_or_else(|| format!("{} of {count} bytes", rest.len()))?;
        self.at += count;
        Ok(bytes)
    }

    fn number_bytes<const N: usize>(&mut self) -> Step<[u8; N]> {
        Ok(*self.bytes(N)?.first_chunk().expect("as many as asked for"))
    }

    /// A number of bytes that is given by `size` bytes.
    fn sized(&mut self, size: usize) -> Step<&'a [u8]> {
        let mut count = [0; 8];
        count[..size].copy_from_slice(self.bytes(size)?);
        let count = u64::from_le_bytes(count);
        self.bytes(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Text up to the end of its line.
    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.content[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.ok_or("a line without an end")?];
        self.at += line.len() + 1;
        str::from_utf8(line).map_err(|_| "a line that is no text".to_owned())
    }

    fn global(&mut self) -> Step<Value<'a>> {
        let (module, name) = (self.line()?, self.line()?);
        self.class(module, name)
    }

    fn class(&mut self, module: &'a str, name: &'a str) -> Step<Value<'a>> {
        if self.globals.len() == MAX_OBJECTS {
            return Err(format!("more than {MAX_OBJECTS} classes"));
        }
        self.globals.push((module, name));
        Ok(Value::Global(self.globals.len() - 1))
    }

    /// Counts a value.
    fn count(&mut self) -> Step<()> {
        self.values += 1;
        match self.values > MAX_VALUES {
            true => Err(format!("more than {MAX_VALUES} values")),
            false => Ok(()),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        self.count()?;
        self.stack.push(value);
        Ok(())
    }

    fn make(&mut self, object: Object<'a>) -> Step<()> {
        if self.objects.len() == MAX_OBJECTS {
            return Err(format!("more than {MAX_OBJECTS} objects"));
        }
        self.push(Value::Object(self.objects.len()))?;
        self.objects.push(object);
        Ok(())
    }

    fn make_by(&mut self, by: Value<'a>, arguments: Value<'a>) -> Step<()> {
        self.make(Object::Made(Box::new(Made {
            by,
            arguments,
            state: Value::None,
            entries: Vec::new(),
            elements: Vec::new(),
        })))
    }

    fn unknown(&mut self, bytes: usize) -> Step<()> {
        self.bytes(bytes)?;
        self.push(Value::None)
    }

    /// Height of the stack below which nothing may be taken.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn top(&self) -> Step<Value<'a>> {
        match self.stack[self.floor()..].last() {
            Some(top) => Ok(*top),
            None => Err("an empty stack".to_owned()),
        }
    }

    fn since_mark(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn object(&mut self, value: Value<'a>) -> Option<&mut Object<'a>> {
        match value {
            Value::Object(number) => self.objects.get_mut(number),
            _ => None,
        }
    }

    fn append(&mut self, new: Vec<Value<'a>>) -> Step<()> {
        let top = self.top()?;
        match self.object(top) {
            Some(Object::List(elements)) => elements.extend(new),
            Some(Object::Made(made)) => made.elements.extend(new),
            _ => return Err("elements without a list".to_owned()),
        }
        Ok(())
    }

    fn insert(&mut self, new: Vec<(Value<'a>, Value<'a>)>) -> Step<()> {
        let top = self.top()?;
        match self.object(top) {
            Some(Object::Dict(entries)) => entries.extend(new),
            Some(Object::Made(made)) => made.entries.extend(new),
            _ => return Err("entries without a dictionary".to_owned()),
        }
        Ok(())
    }

    /// Opcodes that put into the memo and take from it.
    fn remember(&mut self, opcode: u8) -> Step<()> {
        let number = match opcode {
            b'q' | b'h' => u64::from(self.number_bytes::<1>()?[0]),
            b'r' | b'j' => u64::from(u32::from_le_bytes(self.number_bytes()?)),
            0x94 => self.memo.len() as u64,
            _ => {
                let line = self.line()?;
                line.trim().parse().map_err(|_| "no number of the memo")?
            }
        };
        if matches!(opcode, b'q' | b'r' | b'p' | 0x94) {
            let top = self.top()?;
            self.count()?;
            self.memo.insert(number, top);
            return Ok(());
        }
        match self.memo.get(&number) {
            Some(value) => self.push(*value),
            None => Err(format!("nothing under {number} in the memo")),
        }
    }

    /// Opcodes of numbers.
    fn number(&mut self, opcode: u8) -> Step<()> {
        let value = match opcode {
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.number_bytes()?))),
            b'K' => Value::Int(i64::from(self.number_bytes::<1>()?[0])),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.number_bytes()?))),
            b'G' => Value::Float(f64::from_be_bytes(self.number_bytes()?)),
            b'F' => {
                let line = self.line()?.trim();
                Value::Float(line.parse().map_err(|_| "no number")?)
            }
            b'I' | b'L' => match self.line()?.trim().trim_end_matches('L') {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                digits => digits.parse().map_or(Value::None, Value::Int),
            },
            0x8a => long(self.sized(1)?),
            _ => long(self.sized(4)?),
        };
        self.push(value)
    }

    /// Opcodes of texts and bytes; bytes that are no text are of no use here.
    fn text(&mut self, opcode: u8) -> Step<Value<'a>> {
        let bytes = match opcode {
            b'S' | b'V' => {
                let line = self.line()?;
                let quote = |c: char| opcode == b'S' && (c == '\'' || c == '"');
                return Ok(Value::Text(line.trim_matches(quote)));
            }
            b'U' | b'C' | 0x8c => self.sized(1)?,
            b'T' | b'X' | b'B' => self.sized(4)?,
            _ => self.sized(8)?,
        };
        Ok(str::from_utf8(bytes).map_or(Value::None, Value::Text))
    }
}

/// A whole number as pickles write long ones: of any length, the lowest byte first.
fn long<'a>(bytes: &[u8]) -> Value<'a> {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    match whole.get_mut(..bytes.len()) {
        Some(start) => start.copy_from_slice(bytes),
        None => return Value::None,
    }
    Value::Int(i64::from_le_bytes(whole))
}

/// Keys and values that follow each other.
fn pairs<'a>(values: &[Value<'a>]) -> Step<Vec<(Value<'a>, Value<'a>)>> {
    match values.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
        _ => Err("a key without a value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys<'a>(pickle: &Pickle<'a>) -> Vec<Value<'a>> {
        let entries = pickle.entries(pickle.root).iter();
        entries.map(|(key, _)| *key).collect()
    }

    #[test]
    fn every_protocol_is_read() {
        for content in [
            // {'a': (1, -2.5), 'b': [None, True]} as Python's protocols 0, 2 and 4 write it.
            &b"(dp0\nVa\np1\n(I1\nF-2.5\ntp2\nsVb\np3\n(lp4\nNaI01\nas."[..],
            b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01G\xc0\x04\x00\x00\x00\x00\x00\x00\x86q\x02X\x01\x00\x00\x00bq\x03]q\x04(N\x88eu.",
            b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94K\x01G\xc0\x04\x00\x00\x00\x00\x00\x00\x86\x94\x8c\x01b\x94]\x94(N\x88eu.",
        ] {
            let pickle = Pickle::read(content).expect("a pickle");
            assert_eq!(pickle.length, content.len());
            assert_eq!(keys(&pickle), [Value::Text("a"), Value::Text("b")]);
            let part = |name| pickle.elements(pickle.entry(pickle.root, name).expect(name));
            assert_eq!(part("a"), [Value::Int(1), Value::Float(-2.5)]);
            assert_eq!(part("b"), [Value::None, Value::Bool(true)]);
        }
    }

    #[test]
    fn calls_are_kept_and_not_made() {
        let content = b"cposix\nsystem\n(X\x02\x00\x00\x00lstR}X\x01\x00\x00\x00kK\x05sb.";
        let pickle = Pickle::read(content).expect("a pickle");
        let Some(Object::Made(made)) = pickle.object(pickle.root) else {
            panic!("what would have been made");
        };
        assert_eq!(pickle.global(made.by), Some(("posix", "system")));
        assert_eq!(pickle.elements(made.arguments), [Value::Text("ls")]);
        assert_eq!(pickle.entry(made.state, "k"), Some(Value::Int(5)));
    }

    #[test]
    fn what_is_no_pickle_is_an_error() {
        for content in [
            &b""[..],
            b".",
            b"0.",
            b"(",
            b"K",
            b"h\x07.",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc",
            b"K\x01(\x85.",
            b"}Nas.",
            b"e.",
            b"\xff.",
        ] {
            assert!(Pickle::read(content).is_err(), "{content:?}");
        }
        assert_eq!(long(&[0xff]), Value::Int(-1));
        assert_eq!(long(&[0; 9]), Value::None);
        assert_eq!(long(&[]), Value::Int(0));
    }
}
