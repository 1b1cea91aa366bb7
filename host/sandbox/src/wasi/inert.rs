//! `wasi:filesystem` and `wasi:sockets`: present, because runtimes import them where nothing
//! uses them, and refusing. Made from the types that a plugin imports, so every 0.2 fits.

use wasmtime::component::types::{ComponentItem, Type};
use wasmtime::component::{
    Component, Linker, LinkerInstance, Resource, ResourceAny, ResourceType, Val,
};
use wasmtime::{Result, StoreContextMut, bail};

use super::io::{InputStream, IoError, OutputStream, Pollable};
use crate::guest::{Guest, enter};

/// Any resource of these interfaces.
struct Nothing;

/// The error codes that say "not permitted", in order of preference.
const REFUSALS: [&str; 3] = ["not-permitted", "access-denied", "not-supported"];

pub(super) fn link(linker: &mut Linker<Guest>, component: &Component) -> Result<()> {
    let engine = linker.engine().clone();
    let mut seen = Vec::new();
    for (name, import) in component.component_type().imports(&engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else {
            continue;
        };
        let inert = name.starts_with("wasi:filesystem/") || name.starts_with("wasi:sockets/");
        let mut instance = if inert {
            Some(linker.instance(name)?)
        } else {
            None
        };
        for (item, export) in interface.exports(&engine) {
            match export.ty {
                ComponentItem::Resource(resource) => {
                    // What an interface takes over from another is defined there.
                    let defined_here = !seen.contains(&resource);
                    seen.push(resource);
                    if let Some(instance) = instance.as_mut().filter(|_| defined_here) {
                        instance.resource(item, ResourceType::host::<Nothing>(), |_, _| Ok(()))?;
                    }
                }
                ComponentItem::ComponentFunc(_) => {
                    if let Some(instance) = &mut instance {
                        refuse(instance, name, item)?;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn refuse(instance: &mut LinkerInstance<'_, Guest>, interface: &str, item: &str) -> Result<()> {
    let name = format!("{interface}#{item}");
    instance.func_new(item, move |mut caller, ty, parameters, results| {
        enter(&mut caller)?;
        for parameter in parameters {
            if let Val::Resource(resource) = parameter {
                give_back(&mut caller, *resource)?;
            }
        }
        for (result, ty) in results.iter_mut().zip(ty.results()) {
            *result = refusal(&mut caller, &ty, &name)?;
        }
        Ok(())
    })
}

/// Ends what the host holds of a handle that a call handed over.
fn give_back(caller: &mut StoreContextMut<'_, Guest>, resource: ResourceAny) -> Result<()> {
    fn as_a<T: 'static>(
        caller: &mut StoreContextMut<'_, Guest>,
        resource: ResourceAny,
    ) -> Result<bool> {
        let is_one = resource.ty() == ResourceType::host::<T>();
        if is_one {
            resource.try_into_resource::<T>(caller)?;
        }
        Ok(is_one)
    }
    let known = as_a::<Nothing>(caller, resource)?
        || as_a::<InputStream>(caller, resource)?
        || as_a::<OutputStream>(caller, resource)?
        || as_a::<IoError>(caller, resource)?
        || as_a::<Pollable>(caller, resource)?;
    if known {
        Ok(())
    } else {
        bail!("no stand-in makes such a resource")
    }
}

fn refusal(caller: &mut StoreContextMut<'_, Guest>, ty: &Type, name: &str) -> Result<Val> {
    Ok(match ty {
        Type::Result(result) => match result.err() {
            Some(Type::Enum(codes)) => {
                let code = REFUSALS
                    .into_iter()
                    .find(|code| codes.names().any(|n| n == *code));
                match code.or(codes.names().next()) {
                    Some(code) => Val::Result(Err(Some(Box::new(Val::Enum(code.to_owned()))))),
                    None => bail!("{name} is not permitted"),
                }
            }
            Some(_) => bail!("{name} is not permitted"),
            None => Val::Result(Err(None)),
        },
        Type::Option(_) => Val::Option(None),
        Type::List(_) => Val::List(Vec::new()),
        Type::Bool => Val::Bool(false),
        Type::Own(_) => {
            Val::Resource(Resource::<Nothing>::new_own(0).try_into_resource_any(caller)?)
        }
        _ => bail!("{name} is not permitted"),
    })
}
