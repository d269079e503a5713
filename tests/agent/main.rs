//! The agent as its user runs it: the real program, a real broker, and doubles of what a test can't have.

#[path = "../servers/aws.rs"]
mod aws;
mod backlog;
mod bad_input;
mod cameras;
mod clock;
mod cloud;
mod contract;
mod credentials;
mod disk;
mod failover;
#[path = "../servers/fake_nvml.rs"]
mod fake_nvml;
mod field;
mod foreign;
mod gpus;
mod inventory;
mod kernel_log;
mod lives;
#[path = "../servers/mosquitto.rs"]
mod mosquitto;
mod mqtt;
#[path = "../servers/nut.rs"]
mod nut;
mod outbox;
mod plan;
#[path = "../servers/proxy.rs"]
mod proxy;
#[path = "../servers/receiver.rs"]
mod receiver;
mod record;
mod secrets;
mod settings;
mod ssm;
