//! What is broken with the GPUs: driver, library, cards, and what ECS believes of them.

use serde_json::json;

use crate::case::{all, case};
use crate::setup::CARDS;

#[tokio::test]
async fn gpus() {
    all(vec![
        case(
            "a library that does not go with the driver",
            "gpu.nvml",
            "fail",
            "version mismatch: the kernel has 550.90.07",
            "sudo reboot",
            |setup| setup.cards(&json!({"init": "LIB_RM_VERSION_MISMATCH"})),
        ),
        case(
            "a driver that was replaced under NVML",
            "gpu.nvml gpu.ecs",
            "fail",
            "NVML speaks of driver 550.120, the kernel has 550.90.07",
            "sudo reboot",
            |setup| setup.cards(&json!({"driver_version": "550.120", "gpus": [{"preset": "l4"}, {"preset": "l4"}]})),
        ),
        case(
            "no driver",
            "gpu.nvml gpu.devices",
            "fail",
            "driver is not loaded",
            "sudo modprobe nvidia",
            |setup| {
                setup.cards(&json!({"init": "DRIVER_NOT_LOADED"}));
                setup.remove("root/sys/module/nvidia/version");
                setup.remove("root/dev/nvidiactl");
            },
        ),
        case(
            "no library",
            "gpu.nvml",
            "fail",
            "library can't be loaded",
            "[gpu] library = \"\"",
            |setup| setup.set("{library}", "/nonexistent/libnvidia-ml.so.1"),
        ),
        case(
            "a card that has fallen off the bus",
            "gpu.nvml gpu.ecs",
            "fail",
            "is lost",
            "sideline explain gpu.lost",
            |setup| setup.cards(&json!({"gpus": [{"preset": "l4"}, {"preset": "rtx4090", "lost": true}]})),
        ),
        case(
            "NVML that crashes",
            "gpu.nvml gpu.ecs",
            "fail",
            "NVML crashes",
            "nvidia-smi",
            |setup| setup.cards(&json!({"crash": ["nvmlInit_v2"], "gpus": [{"preset": "l4"}]})),
        ),
        case(
            "a card that hangs",
            "gpu.nvml",
            "fail",
            "NVML hangs: nvmlDeviceGetTemperature",
            "sudo reboot",
            |setup| {
                setup.set("[gpu]\n", "[gpu]\ndeadline = \"1s\"\n");
                setup.cards(&json!({"gpus": [{"preset": "l4", "hang": ["nvmlDeviceGetTemperature"]}]}));
            },
        ),
        case(
            "NVML that hangs before it has started",
            "gpu.nvml",
            "fail",
            "NVML does not answer within 9s",
            "sudo reboot",
            |setup| setup.cards(&json!({"hang": ["nvmlInit_v2"]})),
        ),
        case(
            "fewer cards than there should be",
            "gpu.nvml",
            "fail",
            "2 of the 4 GPUs",
            "lspci -d 10de:",
            |setup| setup.set("[gpu]\n", "[gpu]\nexpected = 4\n"),
        ),
        case(
            "ECS that believes in a card that is gone",
            "gpu.ecs",
            "fail",
            "ECS places work on GPU-dead",
            "sudo systemctl restart ecs",
            |setup| setup.ecs_believes_in(&[CARDS[0], CARDS[1], "GPU-dead"], "550.90.07"),
        ),
        case(
            "ECS that does not know a card",
            "gpu.ecs",
            "warn",
            "ECS does not know of it",
            "sudo systemctl restart ecs",
            |setup| setup.ecs_believes_in(&CARDS[..1], "550.90.07"),
        ),
        case(
            "ECS that believes in another driver",
            "gpu.ecs",
            "warn",
            "ECS believes in driver 535.1, here is 550.90.07",
            "sudo systemctl restart ecs",
            |setup| setup.ecs_believes_in(&CARDS, "535.1"),
        ),
        case(
            "ECS that was never told of the cards",
            "gpu.ecs",
            "warn",
            "ECS was not told of any",
            "ECS_ENABLE_GPU_SUPPORT=true",
            |setup| {
                setup.remove("root/var/lib/ecs/gpu/nvidia-gpu-info.json");
                setup.write("root/etc/ecs/ecs.config", "ECS_CLUSTER=field\n");
            },
        ),
        case(
            "no node of the driver",
            "gpu.devices",
            "fail",
            "/dev/nvidiactl is not there",
            "sudo nvidia-modprobe",
            |setup| setup.remove("root/dev/nvidiactl"),
        ),
    ])
    .await;
}
