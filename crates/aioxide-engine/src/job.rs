//! What a scheduler runs.

/// A unit of work, opaque to the engine, which only moves it from where it waits to where it runs.
///
/// A job is cloned each time its descriptor is ready, because the registration stays; nothing else
/// clones it. Neither a clone nor a move may call the engine; dropping a job may.
pub trait Job: Clone + 'static {}
