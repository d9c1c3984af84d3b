//! Who gets which frame: single-threaded state that never waits; `now` is an argument.
