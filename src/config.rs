//! The configuration: one valid value, or an error with the line and the nearest name.
