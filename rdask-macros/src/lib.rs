//! The attribute macros of rdask. Use them through the `rdask` crate, which documents them with
//! examples that run.

use proc_macro::TokenStream;

mod main_fn;

/// Starts `main` the rdask way: a process that was started as a worker works, and never gets to
/// `main`'s own code.
///
/// A cluster starts copies of the user's program on its nodes. `#[rdask::main]` puts
/// `rdask::init();` in front of everything that `main` does. `main` is an ordinary function without
/// parameters, of any return type:
///
/// ```ignore
/// #[rdask::main]
/// fn main() -> rdask::Result<()> {
///     let client = rdask::Client::connect("scheduler.json")?;
///     println!("{:?}", client.gather(client.map(f64::sqrt, [4.0, 9.0]))?);
///     Ok(())
/// }
/// ```
///
/// What `main` sets up is not there in the processes that run tasks. `setup` names a function that
/// runs in every process of the program, before anything else: to install a logger, say.
///
/// ```ignore
/// fn logger() { /* .. */ }
///
/// #[rdask::main(setup = logger)]
/// fn main() {}
/// ```
///
/// `async fn main` is refused: inside a runtime of your own, call `rdask::init()` before you start
/// it, and use `rdask::aio`.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    main_fn::expand(arguments.into(), item.into()).into()
}
