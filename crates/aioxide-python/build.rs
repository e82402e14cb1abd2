//! Gives the crate PyO3's `Py_3_x` configuration flags, and refuses a Python that it cannot be built for.

use pyo3_build_config::{InterpreterConfig, PythonImplementation, PythonVersion};

/// The oldest Python whose structures the crate knows.
const OLDEST: PythonVersion = PythonVersion {
    major: 3,
    minor: 11,
};

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    if let Some(problem) = unsuitable(pyo3_build_config::get()) {
        println!(
            "cargo::error=aioxide needs CPython 3.11 or later, built with the GIL: this Python {problem}"
        );
    }
}

/// What is wrong with a Python.
fn unsuitable(python: &InterpreterConfig) -> Option<String> {
    let abi = python.target_abi();
    if abi.implementation() != PythonImplementation::CPython {
        Some(format!("is {}", abi.implementation()))
    } else if abi.kind().is_free_threaded() {
        Some("is a free-threaded build".to_owned())
    } else if python.version() < OLDEST {
        Some(format!("is {}", python.version()))
    } else {
        None
    }
}
