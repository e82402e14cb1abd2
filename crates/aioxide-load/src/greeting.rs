//! Connections that carry one byte, the server's greeting: opened and closed, or kept.

use std::{
    io::{self, ErrorKind},
    thread,
    time::{Duration, Instant},
};

use crate::{
    conversation,
    endpoint::{Link, Server},
    options::{Options, Outcome},
    poller::{Interest, PATIENCE, Poller},
    tally::{Extent, Tally},
};

/// Connections that are opened before the first greeting has to be there.
const AT_ONCE: usize = 64;

/// Connects; waits if all ports are in use by connections that ended just now.
fn connect(server: &Server) -> io::Result<Link> {
    let start = Instant::now();
    loop {
        match server.connect() {
            Err(error)
                if error.kind() == ErrorKind::AddrNotAvailable && start.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}

/// Reads the greeting; false if it is not there yet.
fn is_greeted(link: &mut Link) -> Outcome<bool> {
    let mut buffer = [0; 2];
    match link.read(&mut buffer)? {
        None => Ok(false),
        Some(1) if &buffer[..1] == b"!" => Ok(true),
        other => Err(format!("no greeting, but {other:?} bytes").into()),
    }
}

/// Opens connections, and closes each when it was greeted, until the phase is over.
fn accept_phase(server: &Server, tally: &mut Tally) -> Outcome {
    let mut poller = Poller::new()?;
    let mut open: Vec<Option<(Link, Instant)>> = (0..AT_ONCE).map(|_| None).collect();
    let mut ready: Vec<usize> = (0..AT_ONCE).collect();
    loop {
        for slot in ready.drain(..) {
            if let Some((link, start)) = &mut open[slot] {
                if !is_greeted(link)? {
                    continue;
                }
                tally.end(start.elapsed());
                open[slot] = None;
            }
            let now = Instant::now();
            if tally.begin(now) {
                let link = connect(server)?;
                poller.add(&link, slot, Interest::Read)?;
                open[slot] = Some((link, now));
            }
        }
        if !tally.is_busy() {
            return Ok(());
        }
        poller.wait_patiently(&mut ready)?;
    }
}

/// Opens as many connections as are open at once later, so that each of those has a session to resume.
fn collect_tickets(server: &Server) -> Outcome {
    if let Some(client) = server.tls.as_ref().filter(|client| client.resumes()) {
        open(server, &mut Vec::new(), AT_ONCE)?;
        if client.tickets() < AT_ONCE {
            return Err("the server gives no tickets".into());
        }
    }
    Ok(())
}

/// `accept`: connects, waits for the greeting, closes.
pub(crate) fn accept(options: &Options) -> Outcome {
    let server = Server::of(options)?;
    let (warmup, extent) = Extent::of(options)?;
    collect_tickets(&server)?;
    accept_phase(&server, &mut Tally::new(warmup, 1))?;
    conversation::ready()?;
    let mut tally = Tally::new(extent, 1);
    accept_phase(&server, &mut tally)?;
    conversation::report(&tally.into_json())
}

/// Opens connections until there are `count`, each greeted.
fn open(server: &Server, links: &mut Vec<Link>, count: usize) -> Outcome {
    while links.len() < count {
        let first = links.len();
        let mut poller = Poller::new()?;
        for token in first..count.min(first + AT_ONCE) {
            let link = connect(server)?;
            poller.add(&link, token, Interest::Read)?;
            links.push(link);
        }
        let mut missing = links.len() - first;
        let mut ready = Vec::new();
        while missing > 0 {
            poller.wait_patiently(&mut ready)?;
            for token in ready.drain(..) {
                missing -= usize::from(is_greeted(&mut links[token])?);
            }
        }
    }
    Ok(())
}

/// `idle`: opens a few connections (`--warmup`), then `--connections` more, and keeps them.
pub(crate) fn idle(options: &Options) -> Outcome {
    let server = Server::of(options)?;
    let few: usize = options.or("warmup", 100)?;
    let many: usize = options.or("connections", 5000)?;
    let mut links = Vec::new();
    open(&server, &mut links, few)?;
    conversation::ready()?;
    open(&server, &mut links, few + many)?;
    conversation::report(&format!(r#"{{"messages": {many}}}"#))?;
    for mut link in links {
        if link.read(&mut [0])?.is_some() {
            return Err("an idle connection was closed, or greeted twice".into());
        }
    }
    Ok(())
}
