//! What is said between this program and the one that started it, a line at a time.

use std::io::{self, BufRead, Write};

use crate::options::Outcome;

/// Says a line.
pub(crate) fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// Waits for a line; false if there will be none.
pub(crate) fn hear() -> io::Result<bool> {
    Ok(io::stdin().lock().read_line(&mut String::new())? > 0)
}

/// Says that all is warm and nothing under way, and waits for the word to begin.
pub(crate) fn ready() -> Outcome {
    say("ready")?;
    if hear()? {
        Ok(())
    } else {
        Err("nobody wants to begin".into())
    }
}

/// Says what was done, and keeps everything open until that was read.
pub(crate) fn report(json: &str) -> Outcome {
    say(json)?;
    hear()?;
    Ok(())
}
