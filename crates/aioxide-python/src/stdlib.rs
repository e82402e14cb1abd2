//! Objects of the standard library, imported once when first used.

use crate::ffi::{Imported, Obj, PyRes};

/// Declares a function for each object that gives it.
macro_rules! imported {
    ($($(#[$doc:meta])* $ident:ident = $module:literal, $path:literal;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub(crate) fn $ident() -> PyRes<&'static Obj> {
            static OBJECT: Imported = Imported::new($module, $path);
            OBJECT.get()
        }
    )*};
}

imported! {
    /// `asyncio.CancelledError`.
    cancelled_error = "asyncio.exceptions", "CancelledError";
    /// `asyncio.InvalidStateError`.
    invalid_state_error = "asyncio.exceptions", "InvalidStateError";
    /// `asyncio.BrokenBarrierError`.
    broken_barrier_error = "asyncio.exceptions", "BrokenBarrierError";
    /// `asyncio.QueueEmpty`.
    queue_empty = "asyncio.queues", "QueueEmpty";
    /// `asyncio.QueueFull`.
    queue_full = "asyncio.queues", "QueueFull";
    /// `asyncio.AbstractEventLoop`.
    abstract_event_loop = "asyncio.events", "AbstractEventLoop";
    /// The module `asyncio.base_events`.
    base_events_module = "asyncio.base_events", "";
    /// `_asyncio.Future`.
    c_future = "_asyncio", "Future";
    /// `_asyncio.Task`.
    c_task = "_asyncio", "Task";
    /// `asyncio.events._set_running_loop`.
    set_running_loop = "_asyncio", "_set_running_loop";
    /// `asyncio.events.get_event_loop`.
    get_event_loop = "_asyncio", "get_event_loop";
    /// The done callback by which `run_until_complete` stops the loop; anyio looks for this very function.
    run_until_complete_cb = "asyncio.base_events", "_run_until_complete_cb";
    /// `asyncio.format_helpers.extract_stack`.
    extract_stack = "asyncio.format_helpers", "extract_stack";
    /// `asyncio.format_helpers._format_callback_source`.
    format_callback_source = "asyncio.format_helpers", "_format_callback_source";
    /// `asyncio.coroutines.iscoroutine`.
    iscoroutine = "asyncio.coroutines", "iscoroutine";
    /// `asyncio.base_futures._future_repr`.
    future_repr = "asyncio.base_futures", "_future_repr";
    /// `asyncio.base_tasks._task_repr`.
    task_repr = "asyncio.base_tasks", "_task_repr";
    /// `asyncio.base_tasks._task_get_stack`.
    task_get_stack = "asyncio.base_tasks", "_task_get_stack";
    /// `asyncio.base_tasks._task_print_stack`.
    task_print_stack = "asyncio.base_tasks", "_task_print_stack";
    /// `_asyncio._current_tasks`, the dict of current tasks (up to 3.13).
    current_tasks = "_asyncio", "_current_tasks";
    /// `_asyncio._enter_task`.
    enter_task = "_asyncio", "_enter_task";
    /// `_asyncio._leave_task`.
    leave_task = "_asyncio", "_leave_task";
    /// `asyncio.tasks._swap_current_task` (from 3.12).
    #[cfg(Py_3_12)]
    swap_current_task = "_asyncio", "_swap_current_task";
    /// `asyncio.tasks` itself.
    tasks_module = "asyncio.tasks", "";
    /// `asyncio.all_tasks`.
    all_tasks = "asyncio.tasks", "all_tasks";
    /// `types.GenericAlias`.
    generic_alias = "types", "GenericAlias";
    /// `collections.abc.Coroutine`.
    coroutine_abc = "collections.abc", "Coroutine";
    /// `concurrent.futures.Future`.
    concurrent_future = "concurrent.futures", "Future";
    /// `inspect.isawaitable`.
    isawaitable = "inspect", "isawaitable";
    /// `asyncio.coroutines._is_debug_mode`.
    is_debug_mode = "asyncio.coroutines", "_is_debug_mode";
    /// `asyncio.base_events._format_handle`.
    format_handle = "asyncio.base_events", "_format_handle";
    /// `asyncio.constants.DEBUG_STACK_DEPTH`.
    debug_stack_depth = "asyncio.constants", "DEBUG_STACK_DEPTH";
    /// `weakref.WeakSet`.
    weak_set = "weakref", "WeakSet";
    /// `sys.get_asyncgen_hooks`.
    get_asyncgen_hooks = "sys", "get_asyncgen_hooks";
    /// `sys.set_asyncgen_hooks`.
    set_asyncgen_hooks = "sys", "set_asyncgen_hooks";
    /// `sys.get_coroutine_origin_tracking_depth`.
    get_origin_depth = "sys", "get_coroutine_origin_tracking_depth";
    /// `sys.set_coroutine_origin_tracking_depth`.
    set_origin_depth = "sys", "set_coroutine_origin_tracking_depth";
    /// `threading.main_thread`.
    main_thread = "threading", "main_thread";
    /// `signal.set_wakeup_fd`.
    set_wakeup_fd = "signal", "set_wakeup_fd";
    /// `concurrent.futures.ThreadPoolExecutor`.
    thread_pool_executor = "concurrent.futures", "ThreadPoolExecutor";
    /// `BaseExceptionGroup`.
    base_exception_group = "builtins", "BaseExceptionGroup";
    /// `ExceptionGroup`.
    exception_group = "builtins", "ExceptionGroup";
    /// `round`.
    round = "builtins", "round";
    /// `asyncio.timeouts._State`, the states that `Timeout._state` shows.
    timeout_state = "asyncio.timeouts", "_State";
    /// `asyncio.futures._set_result_unless_cancelled`.
    set_result_unless_cancelled = "asyncio.futures", "_set_result_unless_cancelled";
    /// `asyncio.tasks._release_waiter`.
    release_waiter = "asyncio.tasks", "_release_waiter";
    /// `concurrent.futures.FIRST_COMPLETED`.
    first_completed = "concurrent.futures", "FIRST_COMPLETED";
    /// `concurrent.futures.FIRST_EXCEPTION`.
    first_exception = "concurrent.futures", "FIRST_EXCEPTION";
    /// `concurrent.futures.ALL_COMPLETED`.
    all_completed = "concurrent.futures", "ALL_COMPLETED";
    /// `inspect.iscoroutinefunction`.
    is_coroutine_function = "inspect", "iscoroutinefunction";
    /// `types.TracebackType`.
    traceback_type = "types", "TracebackType";
    /// `asyncio.gather`.
    gather = "asyncio.tasks", "gather";
    /// `asyncio.events` itself.
    events_module = "asyncio.events", "";
    /// `asyncio.constants` itself.
    constants = "asyncio.constants", "";
    /// `asyncio.runners._State`.
    runner_state = "asyncio.runners", "_State";
    /// `concurrent.futures.CancelledError`.
    concurrent_cancelled_error = "concurrent.futures", "CancelledError";
    /// `concurrent.futures.InvalidStateError`.
    concurrent_invalid_state_error = "concurrent.futures", "InvalidStateError";
    /// `functools.partial`.
    partial = "functools", "partial";
    /// `threading.Thread`.
    thread = "threading", "Thread";
    /// `types.MethodType`.
    method_type = "types", "MethodType";
    /// `signal.signal`.
    signal_function = "signal", "signal";
    /// `signal.siginterrupt`.
    siginterrupt = "signal", "siginterrupt";
    /// `signal.valid_signals`.
    valid_signals = "signal", "valid_signals";
    /// `sys.is_finalizing`.
    is_finalizing = "sys", "is_finalizing";
    /// `collections.deque`.
    deque = "collections", "deque";
    /// `heapq.heappush`.
    heappush = "heapq", "heappush";
    /// `heapq.heappop`.
    heappop = "heapq", "heappop";
    /// `operator.ge`.
    greater_or_equal = "operator", "ge";
    /// `asyncio.Event`.
    event = "asyncio.locks", "Event";
    /// `object.__repr__`.
    object_repr = "builtins", "object.__repr__";
    /// `asyncio.locks._BarrierState`, the states that `Barrier._state` shows.
    barrier_state = "asyncio.locks", "_BarrierState";
    /// The module `ssl` as asyncio imported it, `None` if Python was built without.
    ssl_module = "asyncio.base_events", "ssl";
    /// `socket.IPPROTO_TCP`.
    ipproto_tcp = "socket", "IPPROTO_TCP";
    /// `socket.IPPROTO_UDP`.
    ipproto_udp = "socket", "IPPROTO_UDP";
    /// `asyncio.base_events._ipaddr_info`.
    ipaddr_info = "asyncio.base_events", "_ipaddr_info";
    /// `asyncio.base_events._HAS_IPv6`.
    has_ipv6 = "asyncio.base_events", "_HAS_IPv6";
    /// `socket.socket`.
    socket_class = "socket", "socket";
    /// `socket.AF_INET`.
    af_inet = "socket", "AF_INET";
    /// `socket.AF_INET6`.
    af_inet6 = "socket", "AF_INET6";
    /// `socket.SOCK_STREAM`.
    sock_stream = "socket", "SOCK_STREAM";
    /// `socket.SOL_SOCKET`.
    sol_socket = "socket", "SOL_SOCKET";
    /// `socket.SO_ERROR`.
    so_error = "socket", "SO_ERROR";
    /// `asyncio.SendfileNotAvailableError`.
    sendfile_not_available_error = "asyncio.exceptions", "SendfileNotAvailableError";
    /// `asyncio.constants._SendfileMode.UNSUPPORTED`.
    sendfile_unsupported = "asyncio.constants", "_SendfileMode.UNSUPPORTED";
    /// `asyncio.constants._SendfileMode.TRY_NATIVE`.
    sendfile_try_native = "asyncio.constants", "_SendfileMode.TRY_NATIVE";
    /// `asyncio.transports._FlowControlMixin`.
    transport_flow_control = "asyncio.transports", "_FlowControlMixin";
    /// `asyncio.streams.FlowControlMixin`.
    flow_control_mixin = "asyncio.streams", "FlowControlMixin";
    /// `asyncio.Protocol`.
    protocol = "asyncio.protocols", "Protocol";
    /// `io.UnsupportedOperation`.
    unsupported_operation = "io", "UnsupportedOperation";
    /// `os.fstat`.
    fstat = "os", "fstat";
    /// `os.lseek`.
    lseek = "os", "lseek";
    /// `bytearray`.
    bytearray = "builtins", "bytearray";
    /// `bytes`.
    bytes = "builtins", "bytes";
    /// `memoryview`.
    memoryview = "builtins", "memoryview";
    /// `slice`.
    slice = "builtins", "slice";
    /// `os.fsdecode`.
    fsdecode = "os", "fsdecode";
    /// `asyncio.trsock.TransportSocket`.
    transport_socket = "asyncio.trsock", "TransportSocket";
    /// `asyncio.Transport`.
    transport = "asyncio.transports", "Transport";
    /// `asyncio.DatagramTransport`.
    datagram_transport = "asyncio.transports", "DatagramTransport";
    /// `asyncio.BufferedProtocol`.
    buffered_protocol = "asyncio.protocols", "BufferedProtocol";
    /// `socket` itself.
    socket = "socket", "";
    /// `_socket` itself.
    c_socket = "_socket", "";
    /// `_socket.socket`.
    c_socket_class = "_socket", "socket";
    /// `socket.SOCK_DGRAM`.
    sock_dgram = "socket", "SOCK_DGRAM";
    /// `socket.SOCK_RAW`.
    sock_raw = "socket", "SOCK_RAW";
    /// `sys.audit`.
    audit = "sys", "audit";
    /// `types.FunctionType`.
    function_type = "types", "FunctionType";
    /// `types.BuiltinFunctionType`.
    builtin_function_type = "types", "BuiltinFunctionType";
    /// The threads that look up names for a loop.
    resolver = "aioxide._resolver", "Resolver";
    /// `asyncio.ReadTransport`.
    read_transport = "asyncio.transports", "ReadTransport";
    /// The module `socket`.
    socket_module = "socket", "";
    /// `BrokenPipeError`.
    broken_pipe_error = "builtins", "BrokenPipeError";
    /// `FileNotFoundError`.
    file_not_found_error = "builtins", "FileNotFoundError";
    /// `format`.
    format = "builtins", "format";
    /// `collections.abc.Iterable`.
    iterable_abc = "collections.abc", "Iterable";
    /// `asyncio.base_events.Server`.
    server = "asyncio.base_events", "Server";
    /// The module `asyncio.unix_events`.
    unix_events_module = "asyncio.unix_events", "";
    /// The module `asyncio.sslproto`.
    sslproto_module = "asyncio.sslproto", "";
    /// `asyncio.sslproto.SSLProtocolState`.
    ssl_protocol_state = "asyncio.sslproto", "SSLProtocolState";
    /// `asyncio.sslproto.AppProtocolState`.
    app_protocol_state = "asyncio.sslproto", "AppProtocolState";
    /// `asyncio.sslproto.SSLProtocol`.
    ssl_protocol = "asyncio.sslproto", "SSLProtocol";
    /// `ssl.SSLError`.
    ssl_error = "ssl", "SSLError";
    /// `ssl.SSLWantReadError`.
    ssl_want_read_error = "ssl", "SSLWantReadError";
    /// `ssl.SSLSyscallError`.
    ssl_syscall_error = "ssl", "SSLSyscallError";
    /// `ssl.CertificateError`.
    ssl_certificate_error = "ssl", "CertificateError";
    /// `ssl.SSLObject`.
    ssl_object_class = "ssl", "SSLObject";
    /// `asyncio.constants._SendfileMode.FALLBACK`.
    sendfile_fallback = "asyncio.constants", "_SendfileMode.FALLBACK";
    /// The module `asyncio.streams`.
    streams_module = "asyncio.streams", "";
    /// The module `os`.
    os_module = "os", "";
    /// The logger of `asyncio.streams`.
    streams_logger = "asyncio.streams", "logger";
    /// `asyncio.StreamReader`.
    stream_reader = "asyncio.streams", "StreamReader";
    /// `asyncio.IncompleteReadError`.
    incomplete_read_error = "asyncio.exceptions", "IncompleteReadError";
    /// `asyncio.LimitOverrunError`.
    limit_overrun_error = "asyncio.exceptions", "LimitOverrunError";
    /// `tuple`.
    tuple = "builtins", "tuple";
    /// `os.set_blocking`.
    set_blocking = "os", "set_blocking";
    /// The module `signal`.
    signal_module = "signal", "";
    /// The logger of `asyncio.subprocess`.
    subprocess_logger = "asyncio.subprocess", "logger";
    /// The logger of `asyncio.base_subprocess`.
    base_subprocess_logger = "asyncio.base_subprocess", "logger";
    /// `asyncio.SubprocessTransport`.
    subprocess_transport = "asyncio.transports", "SubprocessTransport";
    /// `asyncio.SubprocessProtocol`.
    subprocess_protocol = "asyncio.protocols", "SubprocessProtocol";
    /// `asyncio.BaseProtocol`.
    base_protocol = "asyncio.protocols", "BaseProtocol";
    /// `ProcessLookupError`.
    process_lookup_error = "builtins", "ProcessLookupError";
    /// `ChildProcessError`.
    child_process_error = "builtins", "ChildProcessError";
    /// `PermissionError`.
    permission_error = "builtins", "PermissionError";
    /// Calls `subprocess.Popen`, in a frame that tools take for asyncio's.
    start_child = "aioxide._frames.asyncio.base_events", "subprocess_exec";
    /// Calls a function of `os` for a server's file, in a frame that tools take for asyncio's.
    bind_file = "aioxide._frames.asyncio.unix_events", "create_unix_server";
    /// The same when the server is closed.
    unbind_file = "aioxide._frames.asyncio.unix_events", "_stop_serving";
    /// Has a thread wait for a child.
    watch_child_in_thread = "aioxide._child_threads", "watch";
}

/// asyncio's logger, looked up where the loop's own code in CPython would find it.
pub(crate) fn logger() -> PyRes {
    base_events_module()?.getattr(crate::names::logger())
}
