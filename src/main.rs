//! The `sticky-lb` program.
fn main() {}
