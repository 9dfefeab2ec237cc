//! Standard output that may be closed early, as by `faultline detectors | head`.

use std::io::{ErrorKind, Write};

/// Exit code of a process that the closed pipe would have ended: 128 + SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// Prints a line; ends the process without a word when nobody reads any more.
macro_rules! outln {
    ($($part:tt)*) => { $crate::out::line(format_args!($($part)*)) };
}
pub(crate) use outln;

/// See [`outln`].
pub fn line(text: std::fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(CLOSED_PIPE);
        }
        panic!("cannot write to standard output: {error}");
    }
}
