//! Prints the configuration's JSON schema as the types have it, for config/sideline.schema.json.
#![expect(clippy::print_stdout, reason = "that is what it is for")]

fn main() {
    let types = schemars::schema_for!(sideline::config::Config).to_value();
    println!("{types:#}");
}
