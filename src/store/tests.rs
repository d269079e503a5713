//! The store against the disk: restarts, damage, want of room.
