//! The files in `crds/`: YAML of the `CustomResourceDefinition`s, the same bytes for the same types.

use anyhow::Context as _;
use serde_saphyr::SerializerOptions;

use crate::api::manifest;

/// First line of every file.
const HEADER: &str = "# Generated from the types in src/api by `postrider crds --out crds`; do not edit.\n";

/// Name and content of every `CustomResourceDefinition`'s file, in alphabetical order.
///
/// # Errors
/// When a definition cannot be written as YAML, which would be a bug.
pub fn files() -> anyhow::Result<Vec<(String, String)>> {
    let manifests = manifest::crds().context("the resource types have no valid schema")?;
    manifests
        .iter()
        .map(|manifest| {
            let mut yaml = HEADER.to_owned();
            let mut options = SerializerOptions::default();
            options.compact_list_indent = true;
            options.prefer_block_scalars = false;
            serde_saphyr::to_fmt_writer_with_options(&mut yaml, &manifest.definition, options)
                .with_context(|| format!("{} cannot be written as YAML", manifest.name))?;
            Ok((format!("{}.yaml", manifest.name), yaml))
        })
        .collect()
}
