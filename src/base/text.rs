//! Comparison of names in Unicode.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// A name in Unicode's composed form (NFC), used to compare names: macOS stores `é` as two characters, people type one.
pub fn nfc(name: &str) -> Cow<'_, str> {
    match is_nfc_quick(name.chars()) {
        IsNormalized::Yes => Cow::Borrowed(name),
        _ => Cow::Owned(name.nfc().collect()),
    }
}

/// A map that finds a key also by a name that is equal to it in NFC.
#[derive(Debug)]
pub struct NameIndex<K, V> {
    exact: BTreeMap<K, V>,
    /// Keys that are not in NFC, by their NFC.
    decomposed: BTreeMap<String, Vec<K>>,
}

/// A name that equals several keys in NFC, but none exactly.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` reads like several names that differ only in how accents are stored: {}; rename one of them",
    .keys.iter().map(|key| format!("`{}`", key.escape_default())).collect::<Vec<_>>().join(", ")
)]
pub struct AmbiguousName {
    /// The name.
    pub name: String,
    /// The keys.
    pub keys: Vec<String>,
}

impl<K: Borrow<str> + Ord + Clone, V> NameIndex<K, V> {
    /// The key and value of a name: an exact match, else the only key that is equal in NFC.
    ///
    /// # Errors
    /// [`AmbiguousName`] when several keys are equal in NFC.
    pub fn get(&self, name: &str) -> Result<Option<(&K, &V)>, AmbiguousName> {
        if let Some(found) = self.exact.get_key_value(name) {
            return Ok(Some(found));
        }
        let composed = nfc(name);
        let decomposed = self.decomposed.get(&*composed).into_iter().flatten();
        let keys = self.exact.get_key_value(&*composed).into_iter();
        let keys = keys.chain(decomposed.filter_map(|key| self.exact.get_key_value(key.borrow())));
        match keys.collect::<Vec<_>>()[..] {
            [] => Ok(None),
            [found] => Ok(Some(found)),
            ref several => Err(AmbiguousName {
                name: name.into(),
                keys: several.iter().map(|(key, _)| (*key).borrow().into()).collect(),
            }),
        }
    }
}

impl<K, V> Default for NameIndex<K, V> {
    fn default() -> Self {
        Self {
            exact: BTreeMap::new(),
            decomposed: BTreeMap::new(),
        }
    }
}

impl<K: Borrow<str> + Ord + Clone, V> FromIterator<(K, V)> for NameIndex<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut names = Self::default();
        for (key, value) in pairs {
            if let Cow::Owned(composed) = nfc(key.borrow())
                && composed != key.borrow()
            {
                names.decomposed.entry(composed).or_default().push(key.clone());
            }
            names.exact.insert(key, value);
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_any_composition_and_never_guessed() {
        let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
        let one: NameIndex<&str, u8> = [("a", 1), (decomposed, 2)].into_iter().collect();
        assert_eq!(one.get(composed), Ok(Some((&decomposed, &2))));
        assert_eq!(one.get("a"), Ok(Some((&"a", &1))));
        assert_eq!(one.get("cafe"), Ok(None));
        let other: NameIndex<&str, u8> = [(composed, 3)].into_iter().collect();
        assert_eq!(other.get(decomposed), Ok(Some((&composed, &3))));

        // Vietnamese, in two compositions that are neither the composed one.
        let (hat_first, dot_first, composed) = ("a\u{302}\u{323}", "a\u{323}\u{302}", "\u{1ead}");
        let both: NameIndex<&str, u8> = [(hat_first, 1), (dot_first, 2)].into_iter().collect();
        assert_eq!(both.get(dot_first), Ok(Some((&dot_first, &2))));
        let said = both.get(composed).unwrap_err().to_string();
        assert!(
            said.contains("`a\\u{302}\\u{323}`, `a\\u{323}\\u{302}`"),
            "{said}"
        );
    }
}
