//! The verbs of the `tidegate` program.
