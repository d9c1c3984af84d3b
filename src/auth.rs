//! Who a peer is: tokens are verified here and nowhere else. Knows no socket and no clock.
