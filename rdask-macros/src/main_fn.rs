//! `#[rdask::main]`: checks the function, and puts the call of `rdask::init` in front of its
//! statements.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Error, Expr, Ident, ItemFn, Result, Token};

/// The expansion, or the error in its place. The function is kept beside an error, so that the
/// compiler does not complain that there is no `main` as well.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            let error =
                Error::new(item.span(), "`#[rdask::main]` goes on `fn main`").into_compile_error();
            return quote! { #error #item };
        }
    };
    let init = match check(&function).and_then(|()| init_call(arguments)) {
        Ok(init) => init,
        Err(error) => {
            let error = error.into_compile_error();
            function.sig.asyncness = None;
            function.block = Box::new(syn::parse_quote!({ ::core::unreachable!() }));
            return quote! { #error #function };
        }
    };
    let ItemFn { attrs, vis, sig, block } = function;
    let statements = block.stmts;
    quote! {
        #(#attrs)*
        #vis #sig {
            #init
            #(#statements)*
        }
    }
}

fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if let Some(asyncness) = &signature.asyncness {
        return Err(Error::new(
            asyncness.span(),
            "`#[rdask::main]` takes a plain `fn main`: rdask starts worker processes before any runtime exists. \
             Inside a runtime of your own use `rdask::aio`: write a plain `fn main` with this attribute, start the \
             runtime in it, and `block_on` your async code there",
        ));
    }
    if signature.ident != "main" {
        return Err(Error::new(
            signature.ident.span(),
            "`#[rdask::main]` goes on `fn main`: it has to be the first thing that the program does",
        ));
    }
    if !signature.inputs.is_empty() {
        return Err(Error::new(
            signature.inputs.span(),
            "`main` has no parameters; see `std::env::args`",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "`main` has no generic parameters"));
    }
    Ok(())
}

/// The statement that starts rdask, from what stands in the attribute's parentheses.
fn init_call(arguments: TokenStream) -> Result<TokenStream> {
    match parse_setup.parse2(arguments)? {
        Some(setup) => Ok(quote! { ::rdask::init_with(#setup); }),
        None => Ok(quote! { ::rdask::init(); }),
    }
}

fn parse_setup(input: ParseStream<'_>) -> Result<Option<Expr>> {
    const FORMS: &str = "write `#[rdask::main]` or `#[rdask::main(setup = function)]`";
    if input.is_empty() {
        return Ok(None);
    }
    let name: Ident = input.parse().map_err(|error| Error::new(error.span(), FORMS))?;
    if name != "setup" {
        return Err(Error::new(name.span(), format!("there is no option `{name}`; {FORMS}")));
    }
    input.parse::<Token![=]>().map_err(|error| Error::new(error.span(), FORMS))?;
    let setup = input.parse().map_err(|error| Error::new(error.span(), FORMS))?;
    input.parse::<Option<Token![,]>>()?;
    if !input.is_empty() {
        return Err(input.error(FORMS));
    }
    Ok(Some(setup))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(arguments: TokenStream, item: TokenStream) -> String {
        expand(arguments, item).to_string()
    }

    #[track_caller]
    fn refused(arguments: TokenStream, item: TokenStream, text: &str) {
        let expanded = expanded(arguments, item);
        assert!(expanded.contains("compile_error"), "{expanded}");
        assert!(expanded.contains(text), "{expanded}");
    }

    #[test]
    fn init_comes_first() {
        let main = quote! { #[allow(unused)] fn main() -> Result<(), E> { work()?; Ok(()) } };
        let wanted = quote! {
            #[allow(unused)]
            fn main() -> Result<(), E> { ::rdask::init(); work()?; Ok(()) }
        };
        assert_eq!(expanded(TokenStream::new(), main), wanted.to_string());
    }

    #[test]
    fn setup_is_handed_on() {
        let wanted = quote! { fn main() { ::rdask::init_with(my::setup); } };
        assert_eq!(
            expanded(quote! { setup = my::setup }, quote! { fn main() {} }),
            wanted.to_string()
        );
        assert_eq!(
            expanded(quote! { setup = my::setup, }, quote! { fn main() {} }),
            wanted.to_string()
        );
    }

    #[test]
    fn misuse_is_explained() {
        let none = TokenStream::new;
        refused(none(), quote! { async fn main() {} }, "use `rdask::aio`");
        refused(none(), quote! { fn other() {} }, "goes on `fn main`");
        refused(none(), quote! { struct Main; }, "goes on `fn main`");
        refused(none(), quote! { fn main(x: u8) {} }, "has no parameters");
        refused(none(), quote! { fn main<T>() {} }, "no generic parameters");
        refused(quote! { threads = 4 }, quote! { fn main() {} }, "there is no option `threads`");
        refused(quote! { setup }, quote! { fn main() {} }, "setup = function");
        refused(quote! { setup = a, b }, quote! { fn main() {} }, "setup = function");
        refused(quote! { "x" }, quote! { fn main() {} }, "setup = function");
    }
}
