//! Holds a file against the schema: unknown keys, missing keys, wrong types, values out of range.
//!
//! What is wrong is noted and taken out, so that the rest can still be read and checked.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::problem::{Found, either, join, nearest, quote, quote_range};
use super::schema::{Leaf, Schema, Shape, Written};

/// What is seen of a file while it is held against the schema.
pub(super) struct Seen<'t, 's> {
    text: &'t str,
    schema: &'s Schema,
    /// Offsets of the syntax errors, sorted: what they touch was only guessed at and is not judged.
    torn: Vec<usize>,
    /// The problems.
    pub(super) found: Found,
    /// Where the value of each key stands, by its path.
    pub(super) places: BTreeMap<String, usize>,
    /// The keys whose values were taken out; no more is said of them.
    pub(super) spoilt: BTreeSet<String>,
}

impl<'t, 's> Seen<'t, 's> {
    pub(super) fn new(text: &'t str, schema: &'s Schema, torn: Vec<usize>, found: Found) -> Self {
        Seen {
            text,
            schema,
            torn,
            found,
            places: BTreeMap::new(),
            spoilt: BTreeSet::new(),
        }
    }

    /// Looks at the whole file and leaves in it what is right.
    pub(super) fn file(&mut self, file: &mut DeTable<'t>) {
        self.value_of_table("", 0, self.schema.root(), file);
    }

    /// Looks at the value at `path`; whether it may stay.
    fn value(&mut self, path: &str, node: &'s Value, value: &mut Spanned<DeValue<'t>>) -> bool {
        let span = value.span();
        self.places.insert(path.to_owned(), span.start);
        // The span of a [table] is its header; one that is torn there still holds keys of its own.
        let header = matches!(value.get_ref(), DeValue::Table(_))
            && !self.text[span.start..].starts_with('{');
        let right = if !header && self.is_torn(span.start, span.end) {
            false
        } else {
            match (self.schema.shape(node), value.get_mut()) {
                (Shape::Table { .. } | Shape::Named(_), DeValue::Table(table)) => {
                    self.value_of_table(path, span.start, node, table);
                    true
                }
                (Shape::List(item), DeValue::Array(list)) => {
                    let mut right = true;
                    for (at, element) in list.iter_mut().enumerate() {
                        right &= self.value(&format!("{path}[{at}]"), item, element);
                    }
                    right
                }
                (shape, value) => self.single(path, span, &shape, value),
            }
        };
        if !right {
            self.spoilt.insert(path.to_owned());
        }
        right
    }

    /// Looks at a value that is no table and no list, or should not be one.
    fn single(
        &mut self,
        path: &str,
        span: std::ops::Range<usize>,
        shape: &Shape<'s>,
        value: &DeValue<'t>,
    ) -> bool {
        let wanted = match shape {
            Shape::Leaf(leaf) => match wanted(path, leaf, value) {
                None => return true,
                Some(wanted) => wanted,
            },
            Shape::Table { .. } | Shape::Named(_) => format!("a table, {}", header(path)),
            Shape::List(item) if self.schema.table(item).is_some() => {
                format!("written [[{path}]], once for each")
            }
            Shape::List(_) => "a list, [\"…\", \"…\"]".into(),
        };
        let text = self.text;
        self.found.add(span.start, || {
            let path = quote(path);
            match value {
                DeValue::Table(_) if matches!(shape, Shape::Leaf(_)) => {
                    format!(
                        "{path} must be {wanted}, is a table; a key with dots in it needs quotes"
                    )
                }
                DeValue::Table(_) => format!("{path} must be {wanted}, is a table"),
                DeValue::Array(_) => format!("{path} must be {wanted}, is a list"),
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_) => {
                    format!("{path} must be {wanted}, is {}", quote_range(text, span))
                }
            }
        });
        false
    }

    /// Looks at the keys and values of a table.
    fn value_of_table(
        &mut self,
        path: &str,
        offset: usize,
        node: &'s Value,
        table: &mut DeTable<'t>,
    ) {
        let shape = self.schema.shape(node);
        for (key, mut value) in std::mem::take(table) {
            let inner = match &shape {
                Shape::Table { keys, .. } => keys.get(key.get_ref().as_ref()),
                Shape::Named(inner) => Some(*inner),
                Shape::List(_) | Shape::Leaf(_) => None,
            };
            if let Some(inner) = inner {
                if self.value(&join(path, key.get_ref()), inner, &mut value) {
                    table.insert(key, value);
                }
            } else if let Shape::Table { keys, .. } = &shape {
                self.unknown(path, &key, &value, keys);
            }
        }
        if let Shape::Table { keys, required } = shape {
            for name in required {
                if !table.contains_key(name) {
                    self.missing(path, offset, name);
                    table.insert(
                        Spanned::new(offset..offset, Cow::Owned(name.to_owned())),
                        Spanned::new(offset..offset, self.stand_in(&keys[name])),
                    );
                }
            }
        }
    }

    fn missing(&mut self, path: &str, offset: usize, name: &str) {
        if self.spoilt.insert(join(path, name)) {
            self.found
                .add(offset, || format!("{} needs {name}", header(path)));
        }
    }

    /// A value in the place of one that must be there and is not, so that its neighbours can be read.
    fn stand_in(&self, node: &'s Value) -> DeValue<'t> {
        let word = match self.schema.shape(node) {
            Shape::Leaf(leaf) => leaf.words.first().copied().unwrap_or_default().to_owned(),
            Shape::List(_) => return DeValue::Array(DeArray::new()),
            Shape::Table { .. } | Shape::Named(_) => String::new(),
        };
        DeValue::String(Cow::Owned(word))
    }

    fn unknown(
        &mut self,
        path: &str,
        key: &Spanned<DeString<'t>>,
        value: &Spanned<DeValue<'t>>,
        keys: &Map<String, Value>,
    ) {
        let span = key.span();
        if self.is_torn(span.start, span.end) {
            return;
        }
        let key = key.get_ref().as_ref();
        if self.found.is_full() {
            self.found.add(span.start, String::new);
            return;
        }
        let near = nearest(key, keys.keys().map(String::as_str));
        if let Some(near) = near {
            // It is misspelt, not missing.
            self.spoilt.insert(join(path, near));
        }
        let schema = self.schema;
        self.found.add(span.start, || {
            let shown = quote(key);
            let what = match (path, value.get_ref()) {
                ("", DeValue::Table(_) | DeValue::Array(_)) => format!("unknown section [{shown}]"),
                ("", _) => format!("unknown key \"{shown}\" above the first section"),
                (path, _) => format!("unknown key \"{shown}\" in {}", header(path)),
            };
            let hint = match (near, homes(schema, key).as_slice()) {
                (Some(near), _) if path.is_empty() => format!("did you mean [{near}]?"),
                (Some(near), _) => format!("did you mean \"{near}\"?"),
                (None, homes @ [_, ..]) if homes.len() < 5 => {
                    format!("it belongs in {}", either(homes))
                }
                (None, _) => {
                    let keys: Vec<_> = keys.keys().collect();
                    format!("known: {}", either(&keys).replace(" or ", ", "))
                }
            };
            format!("{what}; {hint}")
        });
    }

    fn is_torn(&self, start: usize, end: usize) -> bool {
        let first = self.torn.partition_point(|offset| *offset < start);
        self.torn.get(first).is_some_and(|offset| *offset <= end)
    }
}

/// What would be right, if the value is not.
fn wanted(path: &str, leaf: &Leaf<'_>, value: &DeValue<'_>) -> Option<String> {
    match (Written::at(path), value) {
        (Some(written), DeValue::String(text)) if written.accepts(text) => None,
        (Some(written), _) => Some(written.to_string()),
        (None, value) if leaf.accepts(value) => None,
        (None, value) => Some(leaf.wanted(value)),
    }
}

/// How the header of a table is written.
fn header(path: &str) -> String {
    match path
        .strip_suffix(']')
        .and_then(|rest| rest.rsplit_once('['))
    {
        Some((list, _)) => format!("[[{}]]", quote(list)),
        // A table in an element of a list has no header that would name the element.
        None if path.contains('[') => quote(path),
        None => format!("[{}]", quote(path)),
    }
}

/// The tables that have a key of exactly this name.
fn homes(schema: &Schema, key: &str) -> Vec<String> {
    fn search(schema: &Schema, path: &str, node: &Value, key: &str, homes: &mut Vec<String>) {
        match schema.shape(node) {
            Shape::Table { keys, .. } => {
                if keys.contains_key(key) && !path.is_empty() {
                    homes.push(header(path));
                }
                for (name, node) in keys {
                    search(schema, &join(path, name), node, key, homes);
                }
            }
            Shape::List(inner) => search(schema, &format!("{path}[0]"), inner, key, homes),
            Shape::Named(inner) => search(schema, &format!("{path}.NAME"), inner, key, homes),
            Shape::Leaf(_) => {}
        }
    }
    let mut homes = Vec::new();
    search(schema, "", schema.root(), key, &mut homes);
    homes
}
