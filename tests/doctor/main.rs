//! `sideline doctor` on set-ups that are broken, each in one way: the check that says so, and its mend.

#[path = "../servers/aws.rs"]
mod aws;
mod brokers;
mod bundle;
mod case;
mod cloud;
#[path = "../servers/fake_nvml.rs"]
mod fake_nvml;
mod gpus;
#[allow(dead_code, reason = "the agent's tests restart it, too")]
#[path = "../servers/mosquitto.rs"]
mod mosquitto;
mod setup;
mod system;
mod well;
