//! What a message means on its mount: one file per dialect, one closed enum.
