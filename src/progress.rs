//! Progress bars for long work: on stderr, and only when somebody is looking.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `total` steps called `what`; hidden unless stderr is a terminal.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    styled(ProgressBar::new(total), what, "{msg:24} {wide_bar} {percent:3} % {eta:>5}")
}

/// A bar over `total` bytes called `what`; hidden unless stderr is a terminal.
pub fn bytes(total: u64, what: &str) -> ProgressBar {
    styled(ProgressBar::new(total), what, "{msg:24} {wide_bar} {bytes:>10} of {total_bytes:10} {eta:>5}")
}

/// A count of lines for a file called `what`; hidden unless stderr is a terminal.
pub fn lines(what: &str) -> ProgressBar {
    styled(ProgressBar::no_length(), what, "{msg:24} {human_pos} lines, {per_sec}")
}

fn styled(bar: ProgressBar, what: &str, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant that parses"));
    bar.set_message(what.to_owned());
    bar
}
