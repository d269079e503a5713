//! The configuration's list of finding codes holds every code that the judges can raise.

use sideline::config::codes;
use sideline::domain::finding::Code;

#[test]
fn every_code_can_be_named_in_judge_rules() {
    for code in Code::PLAIN {
        assert!(codes::CODES.contains(&code.to_string().as_str()), "{code}");
    }
    assert!(codes::known(&Code::GpuXid(79).to_string()));
}
