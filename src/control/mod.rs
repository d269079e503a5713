//! How this node is steered, and steers: its container instance in ECS, and what SSM holds for it and is told of it.

pub mod ecs;
pub mod ssm;
