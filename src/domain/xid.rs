//! placeholder until merge
use super::finding::{Advice, Severity};
pub struct Row {
    pub name: &'static str,
}
pub fn look_up(_n: u32) -> &'static Row {
    &Row { name: "x" }
}
pub fn judge(_n: u32, _t: &str) -> (Severity, Advice) {
    (Severity::Failing, Advice::Reboot)
}
pub fn persists(_n: u32) -> bool {
    true
}
