//! What the compiler says to users who get it wrong: the messages are part of the interface.
//!
//! That a function captures nothing is found when a program is built, not when it is checked. There
//! is a case that passes, so `trybuild` builds them all.

#[test]
fn messages_of_the_compiler() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
