//! Interned strings: attribute and keyword names that native code looks up.

use crate::ffi::{Interned, Obj};

/// Declares a function for each name that gives the interned `str`.
macro_rules! names {
    ($($ident:ident $(= $text:literal)?),* $(,)?) => {$(
        #[doc = concat!("The name `", names!(@text $ident $($text)?), "`.")]
        #[inline]
        pub fn $ident() -> &'static Obj {
            static NAME: Interned = Interned::new(names!(@text $ident $($text)?));
            NAME.get()
        }
    )*};
    (@text $ident:ident $text:literal) => { $text };
    (@text $ident:ident) => { stringify!($ident) };
}

names! {
    add_done_callback,
    abort = "_abort",
    aexit_body = "_aexit",
    asyncgen_finalizer_hook = "_asyncgen_finalizer_hook",
    asyncgen_firstiter_hook = "_asyncgen_firstiter_hook",
    asyncio_awaited_by = "_asyncio_awaited_by",
    asyncio_future_blocking = "_asyncio_future_blocking",
    call_at,
    call_exception_handler,
    call_later,
    call_soon,
    call_soon_threadsafe,
    cancel,
    cancel_message = "_cancel_message",
    cancelled,
    cancelling,
    close,
    context,
    create_future,
    create_task,
    debug,
    default_exception_handler,
    done,
    dunder_class = "__class__",
    dunder_name = "__name__",
    eager_start,
    error,
    exc_info,
    exception,
    exceptions,
    fileno,
    finalizer,
    firstiter,
    future,
    get,
    get_context,
    get_debug,
    get_loop,
    handle,
    ident,
    is_base_error = "_is_base_error",
    is_running,
    log_destroy_pending = "_log_destroy_pending",
    logger,
    loop_ = "loop",
    make_cancelled_error = "_make_cancelled_error",
    message,
    msg,
    name,
    on_task_done = "_on_task_done",
    on_timeout = "_on_timeout",
    private_loop = "_loop",
    qualname = "__qualname__",
    remove_done_callback,
    reschedule,
    result,
    run,
    run_forever,
    send,
    set_exception,
    set_name,
    set_result,
    shutdown,
    source_traceback,
    submit,
    task,
    thread_name_prefix,
    throw,
    time,
    timer_handle_cancelled = "_timer_handle_cancelled",
    uncancel,
    wait,
    warn_on_full_buffer,
    warning,
}
