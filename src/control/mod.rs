//! How this node is steered, and steers: its container instance in ECS.

pub mod ecs;
