//! What a WebAssembly file says of itself, read without running or compiling it.

use serde::Serialize;
use wasmparser::{ComponentTypeRef, Encoding, Instance, Parser, Payload, TypeBounds};

use crate::error::Refusal;

/// The custom section with the plugin's manifest.
const MANIFEST_SECTION: &str = "semel:manifest";

/// A file's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A component, used as it is.
    Component,
    /// A core module, turned into a component when it is loaded.
    CoreModule,
}

/// The outline of a WebAssembly file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    pub(crate) kind: Option<FileKind>,
    /// Interfaces (of a component) or modules (of a core module), each once.
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    pub(crate) has_component_type: bool,
    /// Core modules that a component instantiates.
    pub(crate) core_instances: u32,
    /// Manifest sections with how deep in the file they were.
    pub(crate) manifests: Vec<(usize, Vec<u8>)>,
}

impl Outline {
    /// Reads as far as it can; the second value says what is wrong with the rest.
    pub(crate) fn read(bytes: &[u8]) -> (Self, Option<Refusal>) {
        let mut outline = Self::default();
        let fault = outline.parse(bytes).err();
        (
            outline,
            fault.map(|reason| Refusal::Invalid(reason.to_string())),
        )
    }

    fn parse(&mut self, bytes: &[u8]) -> wasmparser::Result<()> {
        // Sections of nested modules and components come between their parents' own.
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding, .. } if depth == 0 => {
                    self.kind = Some(match encoding {
                        Encoding::Component => FileKind::Component,
                        Encoding::Module => FileKind::CoreModule,
                    });
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) if depth > 0 => depth -= 1,
                Payload::InstanceSection(section) => {
                    for instance in section {
                        let instantiates = matches!(instance?, Instance::Instantiate { .. });
                        self.core_instances += u32::from(instantiates);
                    }
                }
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        let import = import?;
                        // An alias of a type of an interface, which is an import of its own.
                        if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                            self.add_import(import.name.name);
                        }
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        self.exports.push(export?.name.name.to_owned());
                    }
                }
                Payload::ImportSection(section) if depth == 0 => {
                    for import in section.into_imports() {
                        self.add_import(import?.module);
                    }
                }
                Payload::ExportSection(section) if depth == 0 => {
                    for export in section {
                        self.exports.push(export?.name.to_owned());
                    }
                }
                Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                    self.manifests.push((depth, section.data().to_owned()));
                }
                Payload::CustomSection(section) if depth == 0 => {
                    self.has_component_type |= section.name().starts_with("component-type");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add_import(&mut self, name: &str) {
        if !self.imports.iter().any(|known| known == name) {
            self.imports.push(name.to_owned());
        }
    }
}
