//! `sideline replay` as its user runs it.

mod desk;
mod files;
mod recordings;
