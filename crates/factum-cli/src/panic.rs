//! Panics of the program. They are reported in one line, without a backtrace.

use std::sync::Mutex;

use crate::exit::Exit;

static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the first panic for [`explain`], and prints none where it happens.
pub(crate) fn record() {
    std::panic::set_hook(Box::new(|info| {
        let said = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line()));
        let text = format!("{said}{}", place.unwrap_or_default());
        // A second panic is most likely a consequence of the first.
        let mut first = FIRST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first.get_or_insert_with(|| text.split_whitespace().collect::<Vec<_>>().join(" "));
    }));
}

/// The last line of the program; the text of the panic if one ended the program.
pub(crate) fn explain(exit: Exit, text: String) -> String {
    let first = FIRST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match &*first {
        Some(panic) if exit == Exit::Internal => {
            format!("internal error, please report it: {panic}")
        }
        _ => text,
    }
}
