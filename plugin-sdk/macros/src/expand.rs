//! What the attribute leaves in place of the function.

use proc_macro2::{Literal, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{FnArg, ItemFn, ReturnType, Signature};

use crate::arguments::{Arguments, package};

pub(crate) fn handler(arguments: TokenStream, function: TokenStream) -> syn::Result<TokenStream> {
    let arguments: Arguments = syn::parse2(arguments)?;
    let manifest = arguments
        .manifest(&package("CARGO_PKG_NAME")?, &package("CARGO_PKG_VERSION")?)
        .map_err(|reason| {
            syn::Error::new(
                Span::call_site(),
                format!("{reason}: give another one with `name = \"…\"`"),
            )
        })?;
    let function: ItemFn = syn::parse2(function).map_err(|error| {
        syn::Error::new(error.span(), "a handler is a function: fn NAME(body: TYPE, ctx: &mut semel::Context) -> semel::Result")
    })?;
    let call = call(&function.sig)?;
    Ok(expand(&function, &call, &manifest))
}

/// The call of the function, with the context's message as its argument.
fn call(signature: &Signature) -> syn::Result<TokenStream> {
    if let Some(asyncness) = &signature.asyncness {
        let reason = "a handler is not async: it waits for nothing, the host does";
        return Err(syn::Error::new_spanned(asyncness, reason));
    }
    if let Some(unsafety) = &signature.unsafety {
        return Err(syn::Error::new_spanned(unsafety, "a handler is not unsafe"));
    }
    if !signature.generics.params.is_empty() {
        let reason = "a handler has no generic parameters: it takes one type of message";
        return Err(syn::Error::new_spanned(&signature.generics, reason));
    }
    let ReturnType::Type(_, returned) = &signature.output else {
        let reason = "a handler returns `semel::Result`";
        return Err(syn::Error::new_spanned(signature, reason));
    };
    let types: Vec<_> = signature
        .inputs
        .iter()
        .map(|input| match input {
            FnArg::Typed(input) => Ok(&input.ty),
            FnArg::Receiver(receiver) => Err(syn::Error::new_spanned(
                receiver,
                "a handler is a function, not a method",
            )),
        })
        .collect::<syn::Result<_>>()?;
    let (body, context) = match types.as_slice() {
        [body] => (body, None),
        [body, context] => (body, Some(quote_spanned!(context.span()=> context))),
        _ => {
            let reason = "a handler takes the message's type and, if it wants one, \
                          `ctx: &mut semel::Context`";
            return Err(syn::Error::new_spanned(&signature.inputs, reason));
        }
    };
    // Each part has the span of the type that it is about, so that errors point there.
    let body = quote_spanned! {body.span()=>
        <#body as ::semel::FromMessage>::from_message(context.message())?
    };
    let name = &signature.ident;
    Ok(quote_spanned! {returned.span()=> ::semel::finish(#name(#body, #context)) })
}

fn expand(function: &ItemFn, call: &TokenStream, manifest: &str) -> TokenStream {
    let ItemFn { vis, sig, .. } = function;
    let name = &sig.ident;
    let doc =
        format!("The handler [`{name}`](fn@{name}) as a type, for the host and the test harness.");
    let section = Literal::byte_string(manifest.as_bytes());
    let length = manifest.len();
    quote! {
        #function

        #[doc = #doc]
        #[allow(non_camel_case_types)]
        #vis enum #name {}

        impl ::semel::Handler for #name {
            const MANIFEST: &'static str = #manifest;

            fn handle(
                context: &mut ::semel::Context,
            ) -> ::semel::Result<::core::option::Option<::std::vec::Vec<u8>>> {
                #call
            }
        }

        const _: () = {
            // Outside of WebAssembly nothing else may use it.
            let _ = <#name as ::semel::Handler>::handle;
        };

        #[cfg(target_family = "wasm")]
        const _: () = {
            #[used]
            #[unsafe(link_section = "semel:manifest")]
            static MANIFEST: [u8; #length] = *#section;

            ::semel::guest::bindings::export!(#name);
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(function: TokenStream) -> String {
        let function: ItemFn = syn::parse2(function).unwrap();
        call(&function.sig).unwrap_err().to_string()
    }

    #[test]
    fn a_handler_takes_a_body_and_maybe_a_context() {
        for good in [
            quote!(
                fn f(order: Order) -> Result {}
            ),
            quote!(
                fn f(order: Order, ctx: &mut Context) -> Result {}
            ),
            quote!(
                pub fn f(message: semel::Message, _: &Context) -> semel::Result<String> {}
            ),
        ] {
            let function: ItemFn = syn::parse2(good).unwrap();
            call(&function.sig).unwrap();
        }
    }

    #[test]
    fn other_functions_are_refused_with_the_reason() {
        assert!(
            error(quote!(
                fn f() -> Result {}
            ))
            .contains("takes the message's type")
        );
        assert!(
            error(quote!(
                fn f(a: A, b: B, c: C) -> Result {}
            ))
            .contains("takes the message's type")
        );
        assert!(
            error(quote!(
                async fn f(a: A) -> Result {}
            ))
            .contains("not async")
        );
        assert!(
            error(quote!(
                unsafe fn f(a: A) -> Result {}
            ))
            .contains("not unsafe")
        );
        assert!(
            error(quote!(
                fn f<T>(a: T) -> Result {}
            ))
            .contains("no generic parameters")
        );
        assert!(
            error(quote!(
                fn f(a: A) {}
            ))
            .contains("returns `semel::Result`")
        );
        assert!(
            error(quote!(
                fn f(self, a: A) -> Result {}
            ))
            .contains("not a method")
        );
    }
}
