//! The words that a key is made of, the key, and what keeps addresses from being used again.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use datafusion::arrow::datatypes::FieldRef;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{AggregateUDFImpl, ScalarUDFImpl, WindowFrame, WindowUDFImpl};

/// One word. Values are kept as values: their text may leave out digits, elements and bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Token {
    /// The kind of a node or an expression.
    Kind(&'static str),
    /// A count, a place, or a switch.
    Number(usize),
    /// A name.
    Text(Box<str>),
    /// A literal.
    Value(Box<ScalarValue>),
    /// A name with its type, whether it may be NULL, and its metadata.
    Field(FieldRef),
    /// The rows that a window function looks at.
    Frame(Box<WindowFrame>),
    /// Where a function or a table is in memory.
    Address(usize),
}

impl Token {
    /// About how many bytes it takes beside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Value(value) => value.size(),
            Self::Frame(_) => size_of::<WindowFrame>(),
            Self::Kind(_) | Self::Number(_) | Self::Field(_) | Self::Address(_) => 0,
        }
    }
}

/// Keeps an address from being given to another object, without keeping the object's contents.
#[derive(Debug, Clone)]
pub(crate) enum Pin {
    /// A table.
    Table(Weak<dyn TableProvider>),
    /// A function of values.
    Scalar(Weak<dyn ScalarUDFImpl>),
    /// An aggregate function.
    Aggregate(Weak<dyn AggregateUDFImpl>),
    /// A window function.
    Window(Weak<dyn WindowUDFImpl>),
}

impl Pin {
    /// Whether the object is still there. A key with the address of one that is gone is never asked again.
    pub(crate) fn is_alive(&self) -> bool {
        let holders = match self {
            Self::Table(table) => table.strong_count(),
            Self::Scalar(function) => function.strong_count(),
            Self::Aggregate(function) => function.strong_count(),
            Self::Window(function) => function.strong_count(),
        };
        holders > 0
    }

    /// Whether the object is at this address.
    pub(super) fn is_at(&self, address: usize) -> bool {
        let at = match self {
            Self::Table(table) => table.as_ptr().cast::<()>(),
            Self::Scalar(function) => function.as_ptr().cast::<()>(),
            Self::Aggregate(function) => function.as_ptr().cast::<()>(),
            Self::Window(function) => function.as_ptr().cast::<()>(),
        };
        at as usize == address
    }
}

/// The address of what `of` points to, as a word.
pub(super) fn address<T: ?Sized>(of: &Arc<T>) -> Token {
    Token::Address(Arc::as_ptr(of).cast::<()>() as usize)
}

/// What is asked, by whom, under which settings. Equal keys are equal word by word: the hash only finds them.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    hash: u64,
    tokens: Box<[Token]>,
}

impl Key {
    /// The key of these words.
    pub(crate) fn new(tokens: Vec<Token>, hasher: &impl BuildHasher) -> Self {
        Self { hash: hasher.hash_one(&tokens), tokens: tokens.into() }
    }

    /// What finds it; another number in another process.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val::<[Token]>(&self.tokens)
            + self.tokens.iter().map(Token::heap_bytes).sum::<usize>()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.tokens == other.tokens
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
