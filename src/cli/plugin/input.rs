//! Files and the documents in them.
//!
//! Owns the bound of a file and the reading of YAML and JSON. A [`Document`] knows where it came from, so that every
//! message can say so. A `List` stands for its items. Messages never quote a file, because it may hold Secrets.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// Most bytes of a file.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// One object of a file.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// The file, as the user named it.
    pub(super) file: String,
    /// 1 for the first of the file; empty ones do not count.
    pub(super) number: usize,
    /// What it holds.
    pub(super) value: Value,
}

impl Document {
    /// A top-level member that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.value.get(name)?.as_str()
    }

    /// A member of `metadata` that is text.
    pub(super) fn metadata(&self, name: &str) -> Option<&str> {
        self.value.get("metadata")?.get(name)?.as_str()
    }
}

/// The bytes of a file; `-` is the standard input.
///
/// # Errors
/// When it cannot be read or is too large.
pub(super) fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let read = if path == Path::new("-") {
        bounded(std::io::stdin().lock())
    } else {
        File::open(path).and_then(bounded)
    };
    let bytes = read.with_context(|| format!("cannot read {name}"))?;
    anyhow::ensure!(
        bytes.len() as u64 <= MAX_FILE,
        "{name} is larger than {MAX_FILE} bytes"
    );
    Ok(bytes)
}

fn bounded(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The documents of a file.
///
/// # Errors
/// When it cannot be read, or is neither YAML nor JSON.
pub(super) fn documents(path: &Path) -> anyhow::Result<Vec<Document>> {
    let bytes = bytes(path)?;
    let file = path.display().to_string();
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{file} is not UTF-8"))?;
    parse(&file, text)
}

/// The documents of a text.
pub(super) fn parse(file: &str, text: &str) -> anyhow::Result<Vec<Document>> {
    let values = values(text).map_err(|detail| anyhow::anyhow!("{file} cannot be read: {detail}"))?;
    let mut documents = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let document = |value| Document {
            file: file.to_owned(),
            number: index + 1,
            value,
        };
        match items(&value) {
            Some(items) => documents.extend(items.iter().cloned().map(document)),
            None => documents.push(document(value)),
        }
    }
    Ok(documents)
}

fn items(value: &Value) -> Option<&Vec<Value>> {
    let is_list = value.get("kind")?.as_str()? == "List";
    value.get("items").filter(|_| is_list)?.as_array()
}

/// YAML knows most JSON; what it does not is one object after the other, and tabs.
fn values(text: &str) -> Result<Vec<Value>, String> {
    let yaml = serde_saphyr::from_multiple::<Value>(text);
    let error = match yaml {
        Ok(values) => return Ok(values),
        Err(error) => error,
    };
    if text.trim_start().starts_with('{') {
        let json: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        return json.map_err(|error| error.to_string());
    }
    Err(error.without_snippet().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(usize, &str)]) {
        let documents = parse("f", text).unwrap();
        let found: Vec<_> = documents
            .iter()
            .map(|document| (document.number, document.text("kind").unwrap_or_default()))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn documents_are_read_in_every_form() {
        check("kind: A\n---\n# nothing\n---\nkind: B\n", &[(1, "A"), (2, "B")]);
        check("{\"kind\": \"A\"}\n{\n\t\"kind\": \"B\"}", &[(1, "A"), (2, "B")]);
        check("kind: List\nitems: [{kind: A}, {kind: B}]", &[(1, "A"), (1, "B")]);
        check("", &[]);
    }

    #[test]
    fn a_broken_file_is_not_quoted() {
        for text in [
            "a: s3cret: x",
            "stringData: {a: \"s3cret",
            "{\"a\": s3cret",
            "a: &s3cret x\nb: *s3cre\n",
        ] {
            let error = format!("{:#}", parse("f.yaml", text).unwrap_err());
            assert!(error.starts_with("f.yaml cannot be read: "), "{error}");
            assert!(!error.contains("s3cret") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_is_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let size = usize::try_from(MAX_FILE).unwrap();
        std::fs::write(file.path(), vec![b' '; size]).unwrap();
        assert_eq!(bytes(file.path()).unwrap().len(), size);
        std::fs::write(file.path(), vec![b' '; size + 1]).unwrap();
        assert!(bytes(file.path()).unwrap_err().to_string().contains("larger"));
    }
}
