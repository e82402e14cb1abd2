//! The other end of the network benchmarks, in a process and on a core of its own.
//!
//! `aioxide-load echo|source|sink|accept|idle ADDRESS [options]` is a client, `floor ADDRESS` the echo server
//! that any server written in Python is measured against. An address is `--tcp HOST:PORT`,
//! `--unix PATH` or `--udp HOST:PORT`. A client speaks TLS over TCP if `--tls full` or `--tls resumed` says so.
//!
//! A client warms the server up, says `ready`, waits for a line, does what is measured, and says
//! in JSON what it did. At both moments nothing is under way, so whoever reads the server's CPU time
//! then has neither more nor less than the messages that are reported. What comes back is
//! compared with what was sent; a difference ends the run with an error.

#[cfg(target_os = "linux")]
mod bulk;
#[cfg(target_os = "linux")]
mod conversation;
#[cfg(target_os = "linux")]
mod echo;
#[cfg(target_os = "linux")]
mod endpoint;
#[cfg(target_os = "linux")]
mod floor;
#[cfg(target_os = "linux")]
mod greeting;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod poller;
#[cfg(target_os = "linux")]
mod tally;
#[cfg(target_os = "linux")]
mod tls;

use std::process::ExitCode;

/// Runs what the command line asks for.
#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let outcome = options::Options::parse(arguments).and_then(|options| match command.as_str() {
        "echo" => echo::run(&options),
        "source" => bulk::source(&options),
        "sink" => bulk::sink(&options),
        "accept" => greeting::accept(&options),
        "idle" => greeting::idle(&options),
        "floor" => floor::run(&options),
        _ => Err(format!("unknown command {command:?}").into()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("aioxide-load {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// There is no generator for this system.
#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("aioxide-load needs epoll");
    ExitCode::FAILURE
}
