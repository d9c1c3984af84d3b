//! One core: rings, sockets, time, files, handlers. The only folder that knows io_uring.
