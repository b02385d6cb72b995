//! The built-in worker: `sticky-lb` runs it when it is given no command.

pub mod app;
pub mod server;
// The chat is the example's, so that people can copy there what they see here.
#[path = "../examples/chat/history.rs"]
mod history;
#[path = "../examples/chat/rooms.rs"]
mod rooms;
