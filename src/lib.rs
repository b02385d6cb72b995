//! Sticky sessions by handing each client's TCP connection to its own worker process.
