//! What operators are shown, and what is done when memory is short. Knows connections from outside;
//! changes none but to end it.

pub(crate) mod listing;
pub(crate) mod memory;
pub(crate) mod slow;
